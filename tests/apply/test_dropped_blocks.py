"""Dropped blocks among the steps of a recipe: order, sharing, calibration behind them, and back bit for bit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from blip2sweep.apply.patch import Patch
from blip2sweep.backends.torch.evaluate import evaluate
from blip2sweep.cache.tensors import Memo
from blip2sweep.compression.undo import Undo
from blip2sweep.errors import UserError
from blip2sweep.models import shorter
from blip2sweep.models.anatomy import anatomy
from blip2sweep.models.load import Loaded, load
from blip2sweep.recipe import Recipe, resolve_recipe
from blip2sweep.tasks import Generation, load_task
from tests.apply.calibration.test_calibration import calibrator, samples
from tests.apply.test_undo import Boom, Faults, identities
from tests.checkpoints import TINY, conf, recipe, tiny_config
from tests.in_process import jobs, run

GONE = "vit:2+qformer:4-5+llm:0+3"
QUANT = {"method": "rtn", "bits": 4, "strategy": "channel"}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def opt() -> Loaded:
    return load(tiny_config(), TINY)


@pytest.fixture
def unharmed(opt: Loaded) -> Iterator[Loaded]:
    before = identities(opt)
    yield opt
    assert identities(opt) == before


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    return Faults(monkeypatch)


def composed(loaded: Loaded, drop: str | None, part: str = "all", **quant: Any) -> Recipe:
    quant = {**QUANT, **quant} if quant or part != "none" else QUANT
    config = {"part": part, "blocks": "all", "layers": "all", "quant": quant, "drop_blocks": drop}
    return resolve_recipe(config, loaded.anatomy)


def texts(loaded: Loaded) -> list[tuple[str, float]]:
    task = load_task({**conf("task/shapes_caption"), "limit": 6})
    records = evaluate(loaded, task, Generation(None, 1, 10), batch_size=6, nll_references=1).records
    return [(r["text"], r["nll_sum"]) for r in records]


def weights(loaded: Loaded) -> dict[str, Tensor]:
    return {n: p.clone() for n, p in loaded.model.named_parameters()}


def test_the_order_of_dropping_and_quantizing_does_not_matter(unharmed: Loaded) -> None:
    """For methods that see weights alone: dropped first, and quantized first with blocks dropped from that model."""
    plain = texts(unharmed)
    for method in ("rtn", "hqq"):
        with Patch(unharmed).apply(composed(unharmed, GONE, method=method)):
            first = texts(unharmed), weights(unharmed)
        with ExitStack() as stack:
            stack.enter_context(Patch(unharmed).apply(recipe(unharmed.anatomy, **{**QUANT, "method": method})))
            stack.enter_context(Patch(unharmed).apply(composed(unharmed, GONE, part="none")))
            assert texts(unharmed) == first[0] != plain
            assert all(torch.equal(x, first[1][n]) for n, x in weights(unharmed).items())


@pytest.mark.thorough
def test_one_recipe_after_the_other_is_each_from_scratch(unharmed: Loaded) -> None:
    recipes = [
        composed(unharmed, None),
        composed(unharmed, GONE),
        composed(unharmed, "llm:5", "none"),
        composed(unharmed, "llm:5", "vit", bits=3),
        composed(unharmed, GONE, "none"),
    ]
    expected = []
    for made in recipes:
        with Patch(unharmed).apply(made):
            expected.append(texts(unharmed))
    assert len({str(x) for x in expected}) == len(recipes)
    with Patch(unharmed, Memo(torch.device("cpu"), 0, 10**9)) as patch:
        for i in (0, 1, 2, 3, 4, 1, 0, 3, 3, 2, 4, 0):
            patch.apply(recipes[i])
            assert texts(unharmed) == expected[i]


def test_weights_are_remembered_across_sets_of_blocks(unharmed: Loaded) -> None:
    """Rounding a layer does not depend on the blocks beside it."""
    with Patch(unharmed, Memo(torch.device("cpu"), 0, 10**9)) as patch:
        patch.apply(composed(unharmed, None))
        applied = patch.apply(composed(unharmed, "llm:5"))
        assert (applied.written, applied.recalled) == (0, 102)


def test_a_failure_at_any_exchange_leaves_the_model_as_loaded(unharmed: Loaded, faults: Faults) -> None:
    before, made = identities(unharmed), composed(unharmed, GONE, "none")
    with Patch(unharmed).apply(made):
        total = faults.made
    assert total > 4 * 4  # blocks, and numbers in the cache
    for late in (False, True):
        for k in range(1, total + 1):
            faults.at, faults.made, faults.late = k, 0, late
            with pytest.raises(Boom), Patch(unharmed) as patch:
                patch.apply(made)
            assert identities(unharmed) == before


def test_layers_behind_dropped_blocks_are_calibrated_as_those_of_a_shorter_model(
    unharmed: Loaded, tmp_path: Path
) -> None:
    chosen, gone = samples(n=8), {"vit": "2", "llm": "0"}
    with Patch(unharmed).apply(composed(unharmed, "vit:2+llm:0", "none")), Undo() as undo:
        for change in shorter.changes(unharmed.model, tiny_config()):  # type: ignore[arg-type]
            undo.attribute(*change)
        unharmed.model.save_pretrained(tmp_path)
        unharmed.processor.save_pretrained(tmp_path)
    config = tiny_config()
    sizes = {s: {**config["config"][s], "num_hidden_layers": 5} for s in ("vision_config", "text_config")}
    short = load({**config, "config": {**config["config"], **sizes}}, tmp_path)  # type: ignore[typeddict-item]
    made = composed(unharmed, "vit:2+llm:0", "vit+llm", method="gptq", bits=3)
    with Patch(unharmed).apply(made.before):
        found = calibrator(unharmed)(made, chosen)
    expected = calibrator(short)(recipe(short.anatomy, "vit+llm", method="gptq", bits=3, strategy="channel"), chosen)
    assert len(found) == len(expected) == 5 * 4 + 5 * 6
    for path, prepared in found.items():
        there = expected[_renumbered(path, gone)]
        ours, theirs = (p.values(torch.float32) for p in (prepared, there))
        assert ours is not None
        assert theirs is not None
        assert torch.equal(ours, theirs), path


def test_what_lies_behind_a_part_is_not_in_the_name_of_its_calibration(unharmed: Loaded) -> None:
    """Sets of blocks of a later part share the measured layers of the earlier ones."""
    chosen, work, path = samples(n=4), calibrator(unharmed), "vision_model.encoder.layers.3.mlp.fc1"

    def key(drop: str | None) -> str:
        made = composed(unharmed, drop, "vit", method="gptq", bits=3)
        with Patch(unharmed).apply(made.before):
            return work(made, chosen)[path].key

    assert key(None) == key("llm:0") == key("qformer:4-5+llm:1-2") != key("vit:2")


def _renumbered(path: str, gone: dict[str, str]) -> str:
    """The path of a layer in the shorter model: one number less behind a block that is dropped."""
    part = "vit" if path.startswith("vision_model") else "llm"
    head, block, rest = path.partition(".layers.")[0], *path.partition(".layers.")[2].split(".", 1)
    return f"{head}.layers.{int(block) - (int(block) > int(gone[part]))}.{rest}"


@pytest.mark.thorough
def test_what_is_shared_changes_no_token() -> None:
    """Cells that share blocks in one process say what each says alone."""
    drop = "drop_blocks=none,vit:4,qformer:4-5,llm:0,vit:4+llm:0+3"
    these = jobs(drop, "part=none,vit", "quant.bits=4", "blocks=5", limit=6)
    shared, alone = run(these), run(these, cache="off")
    assert {k: p.hash for k, (p, _) in shared.items()} == {k: p.hash for k, (p, _) in alone.items()}
    assert len({p.hash for p, _ in shared.values()}) == len(these) == 10
    skipped = [info["cost"].get("hits_vision_blocks", 0) for _, info in shared.values()]
    assert sum(x >= 4 for x in skipped) == 9  # all but the first start behind block 3
    changed = {j["columns"]["recipe"]: shared[j["key"]][1]["layers_changed"] for j in these}
    assert changed["qformer:4-5=dropped"] == 16


@pytest.mark.parametrize(
    ("name", "drop"), [("qwen3-vl-2b", "connector:3"), ("llava-1.5-7b", "connector:1@last"), ("smolvlm-256m", "vision:0+connector:0")]
)  # fmt: skip
def test_a_part_that_adds_to_nothing_is_refused(name: str, drop: str) -> None:
    config = {"part": "none", "blocks": "all", "layers": "all", "quant": {}, "drop_blocks": drop}
    said = f"drop_blocks={drop}: connector of {name} is no list of blocks .*; right: blocks of vision or language"
    with pytest.raises(UserError, match=re.escape(said).replace(r"\.\*", ".*"), check=lambda e: "\n" not in str(e)):
        resolve_recipe(config, anatomy(conf(f"model/{name}")))  # type: ignore[arg-type]


@pytest.mark.thorough
def test_a_block_that_nothing_reads_is_free() -> None:
    """The last block of LLaVA's tower: the same words, none of them computed anew, and a smaller model."""
    these = jobs("model=tiny-llava", "drop_blocks=none,vision:5", "part=none", "task=shapes_vqa", limit=3)
    (plain, without), found = these, run(these)
    assert found[plain["key"]][0].hash == found[without["key"]][0].hash
    assert found[without["key"]][1]["cost"]["hits_language"] == 3
    assert without["columns"]["blocks_dropped"] == "vision:5"
    assert without["columns"]["model_bytes"] < plain["columns"]["model_bytes"]
