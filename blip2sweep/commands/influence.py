"""`blip2sweep influence`: measures the influence of a model's blocks, or reads it where it was measured, and prints it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from blip2sweep.planning.cell_builder import CellBuilder
from blip2sweep.planning.influence import check_words, least_first, measurable
from blip2sweep.planning.model import planned_model


def print_influence(config: Mapping[str, Any]) -> Iterator[str]:
    """Lines, one for each stack of blocks. config: of one cell; what it compresses does not change the values.

    Raises UserError where planning would refuse what it says.
    """
    model = planned_model(config["model"])
    check_words(config, model.anatomy)
    parts = measurable(model.anatomy, bool(config["calibration"]["text_only"]))
    values = CellBuilder().influence(config, model, parts)
    yield "influence of each block (1 - cosine of its input and output), and the blocks from the least influence on"
    for part in parts:
        for s in part.stacks:
            name = part.name if len(part.stacks) == 1 else f"{part.name}.{s.name}"
            own = " ".join(f"{values[part.name][i]:.4f}" for i in range(s.first, s.first + s.n))
            order = ",".join(map(str, least_first(values, part, s)))
            yield f"{name}: {own} | {order}"
