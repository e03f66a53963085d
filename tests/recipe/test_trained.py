"""What a recovery depends on, and its control, from recipes alone."""

from __future__ import annotations

import pytest

from blip2sweep.models.anatomy import anatomy
from blip2sweep.recipe import Recipe, resolve_recipe
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
