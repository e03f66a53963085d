"""What a recovery depends on, and its control, from recipes alone."""

from __future__ import annotations

import pytest

from blip2sweep.models.anatomy import anatomy
from blip2sweep.recipe import Recipe, resolve_recipe
from blip2sweep.recipe.columns import recipe_columns
from blip2sweep.recipe.size import alike
from blip2sweep.recipe.trained import control_of
from tests.checkpoints import t5_config

T5 = anatomy(t5_config())
NOTHING = {"part": "none", "blocks": "all", "layers": "all", "quant": {"method": "rtn", "bits": "none"}}


def recovered(target: str, drop: str | None = None) -> Recipe:
    """LoRA on a target of a T5 model, and nothing else but dropped blocks."""
    recover = {"method": "lora", "rank": 2, "target": target}
    return resolve_recipe({**NOTHING, "drop_blocks": drop, "recover": recover}, T5)


@pytest.mark.parametrize("target", ["llm.decoder", "llm.encoder", "llm", "llm.decoder+qformer"])
@pytest.mark.parametrize("drop", ["llm.decoder:1", "llm.encoder:1"])
def test_a_control_trains_dropped_blocks_of_a_stack_whose_others_are_trained(target: str, drop: str) -> None:
    """Layers of encoder and decoder have names in common. What one of them has is no sign of the other."""
    assert control_of(recovered(target, drop)).hash == control_of(recovered(target)).hash


LORA = {"method": "lora", "target": "llm"}
FULL = {"method": "full", "target": "llm"}


def columns(recover: dict[str, object], **config: object) -> dict[str, object]:
    return recipe_columns(
        resolve_recipe({**NOTHING, "part": "llm", "recover": recover, **config}, T5), alike(10**6, 16)
    )


@pytest.mark.parametrize(
    ("recover", "bits", "word"),
    [(LORA, 3, "lora r8 150 steps"), ({**LORA, "merge": True}, 16, "lora r8 150 steps merged"),
     ({**LORA, "requantize": True}, 3, "lora r8 150 steps merged"), (FULL, 16, "full 150 steps"),
     ({**FULL, "requantize": True}, 3, "full 150 steps")],
)  # fmt: skip
def test_widths_are_of_what_is_on_a_grid(recover: dict[str, object], bits: int, word: str) -> None:
    found = columns(recover, quant={"method": "rtn", "bits": 3})
    assert (found["bits_llm"], found["bits_language"]) == (bits, bits)
    assert f"llm:all:all={word}" in str(found["recipe"])


def test_the_width_of_a_part_is_the_mean_over_what_is_and_is_not_on_a_grid() -> None:
    """Encoder and decoder have 2 blocks each, and those of the decoder have more layers."""
    found = columns({**LORA, "target": "llm.encoder", "merge": True}, quant={"method": "rtn", "bits": 4})
    size = {s: sum(x.weights for x in T5.parts["llm"].linears if x.stack == s) for s in ("encoder", "decoder")}
    mean = (16 * size["encoder"] + 4 * size["decoder"]) / sum(size.values())
    assert found["bits_llm"] == pytest.approx(mean)


@pytest.mark.parametrize(
    ("recover", "word"),
    [(LORA, "magnitude0.5"), ({**LORA, "merge": True}, None), (FULL, None), ({**FULL, "target": "llm.encoder"}, "mixed"),
     ({**FULL, "target": "qformer"}, "magnitude0.5")],
)  # fmt: skip
def test_zeros_are_not_claimed_where_training_fills_them(recover: dict[str, object], word: str | None) -> None:
    assert columns(recover, sparsity={"method": "magnitude"})["sparsity"] == word
