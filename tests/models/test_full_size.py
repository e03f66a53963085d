"""The module trees of released models at full size, on the meta device: the counts of their parts, exactly."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import pytest
from torch import nn

from blip2sweep.models.anatomy import anatomy
from blip2sweep.models.tree import tree, verify
from tests.checkpoints import build_meta, conf


class Counts(NamedTuple):
    """parts: {part: (blocks, linears in blocks, their weights)}. total: of all parameters. text: fields that conf leaves
    to the checkpoint. untied: parameters of a head that ties on the meta device and is stored with values of its own."""

    total: int
    parts: dict[str, tuple[int, int, int]]
    text: tuple[tuple[str, int], ...] = ()
    untied: int = 0


EVA, TEXT_QFORMER = (39, 156, 984_023_040), (12, 120, 161_611_776)
VIT_B, BERT = (12, 48, 84_934_656), (12, 120, 113_246_208)
MODELS = {
    "blip-image-captioning-base": Counts(223_971_644, {"vit": VIT_B, "llm": BERT}),
    "blip-image-captioning-large": Counts(446_290_492, {"vit": (24, 96, 301_989_888), "llm": (12, 120, 117_964_800)}),
    "blip2-itm-vit-g": Counts(1_172_032_258, {"vit": EVA, "qformer": TEXT_QFORMER}),
    "blip-vqa-base": Counts(361_230_140, {"vit": VIT_B, "llm": (24, 240, 226_492_416)}),
    "instructblip-vicuna-7b": Counts(
        7_913_210_624, {"vit": EVA, "qformer": TEXT_QFORMER, "llm": (32, 224, 6_476_005_376)}, (("vocab_size", 32001),)
    ),
    "instructblip-flan-t5-xl": Counts(
        4_022_969_088,
        {"vit": EVA, "qformer": TEXT_QFORMER, "llm": (48, 432, 2_717_908_992)},
        untied=32128 * 2048,
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_counts_of_released_models(name: str) -> None:
    counts, model = MODELS[name], conf(f"model/{name}")
    own = copy.deepcopy(dict(model["config"]))
    own.get("text_config", {}).update(counts.text)
    built = build_meta({**model, "config": own})
    layout = anatomy(model)
    verify(built, layout)
    linears, blocks = tree(built, layout)
    found: dict[str, Any] = {}
    for part in layout.parts.values():
        inside = [x for path, x in linears.items() if any(path.startswith(s.path + ".") for s in part.stacks)]
        found[part.name] = (sum(blocks[s.path] for s in part.stacks), len(inside), sum(a * b for a, b, _ in inside))
    assert found == counts.parts
    assert _parameters(built) + counts.untied == counts.total


def _parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
