"""What sharing can save at most: the costs of a model's stages through transformers alone, times how often each has to run.

For models of LLaVA's kind. A picture's features are the same wherever the recipes before them are, so the tower runs once
for each recipe of the tower and the connector once for each of both. The language model runs for every cell: nobody
shares what it reads.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from blip2sweep.models.anatomy import anatomy
from blip2sweep.planning.plan import Plan
from blip2sweep.recipe.chain import Entries
from scripts.benchmarks.ours import Setting
from scripts.benchmarks.reference import loaded, read

STAGES = ("vision", "connector", "language")
Costs = dict[str, float]  # of a load, and of an image in each stage


class Clock:
    """Costs by name: processor seconds on a CPU, where neighbours change others; seconds on a GPU."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.costs: Costs = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = self._now()
        yield
        self.costs[name] = self.costs.get(name, 0.0) + self._now() - start

    def _now(self) -> float:
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


@torch.inference_mode()
def costs(folder: Path, images: Sequence[Path], text: str, device: str, dtype: str, new_tokens: int) -> Costs:
    """The cost of a load, and of an image in each stage with all images in one batch. Reading images is not counted."""
    clock = Clock(device)
    with clock("load"):
        model, processor = loaded(folder, device, dtype)
    inputs = [read(model, processor, image, text) for image in images]
    pixels, ids, mask = (torch.cat([x[k] for x in inputs]) for k in ("pixel_values", "input_ids", "attention_mask"))
    tower, blocks = model.model.vision_tower, model.model.vision_tower.encoder.layers
    tower.encoder.layers = blocks[: len(blocks) + 1 + model.config.vision_feature_layer]  # nobody reads the rest
    with clock("vision"):
        states = tower(pixels).last_hidden_state[:, 1:]
    with clock("connector"):
        features = model.model.multi_modal_projector(states)
    with clock("language"):
        seen = {"image": BaseModelOutputWithPooling(pooler_output=list(features))}
        model.generate(
            input_ids=ids, attention_mask=mask, mm_encoder_outputs=seen, max_new_tokens=new_tokens, do_sample=False
        )  # fmt: skip
    return {k: v if k == "load" else v / len(images) for k, v in clock.costs.items()}


def needed(given: Setting, plan: Plan) -> dict[str, int]:
    """{stage: how often it has to see every image}. Recipes that differ in a stage are taken to differ from block 0 on."""
    entries = Entries(anatomy(given.model))
    cells = [entries(cell.job()["recipe"]) for cell in plan.cells.values()]
    return {
        stage: len({tuple(cell.get(s) for s in STAGES[: i + 1]) for cell in cells}) for i, stage in enumerate(STAGES)
    }


def against(
    times: Mapping[str, int], measured: Sequence[Costs], images: int, mine: Mapping[str, Any], a_cell: float
) -> dict[str, Any]:
    """The bound, and what was reached with one worker. measured: rounds of `costs`, of which the mean counts. a_cell: the
    reference's cost of a cell.

    rows: {what: (what it costs at least, what it cost us)}. Our stages are known in seconds of a clock; they are scaled
    to the worker's cost after its start. The rows together are the worker's cost but for scores left at the end.
    """
    each = {k: sum(one[k] for one in measured) / len(measured) for k in measured[0]}
    least = {"load": each["load"], **{s: each[s] * n * images for s, n in times.items()}}
    spent = _spent(mine)
    rows = {k: (least.get(k, 0.0), v) for k, v in spent.items()}
    whole = a_cell * mine["cells"]
    bound, reached = whole / sum(least.values()), whole / sum(spent.values())
    found = {"bound": bound, "reached": reached, "share": reached / bound}
    return {**found, "each": each, "times": dict(times), "rows": rows}


def _spent(mine: Mapping[str, Any]) -> dict[str, float]:
    """Where a worker's cost went, first the stages."""
    start, all_cells = mine["before_first_cell"], mine["seconds"] - mine["before_first_cell"] - mine["after_last_cell"]
    scale = 1.0
    if mine["device"] == "cpu":
        start = mine["cpu_before_first_cell"]
        scale = (mine["own_cpu_seconds"] - start) / all_cells
    names = ("load", *STAGES, "likelihood", "images", "apply")
    found = {k: mine[f"seconds_{k}"] for k in names if f"seconds_{k}" in mine}
    found |= {"rest of cells": mine["in_cells"] - sum(found.values()), "between cells": all_cells - mine["in_cells"]}
    return {**{k: v * scale for k, v in found.items()}, "start": start}


def lines(found: Mapping[str, Any], device: str) -> Iterator[str]:
    """The bound in words and a table."""
    unit = "processor seconds" if device == "cpu" else "seconds"
    yield (
        f"  bound      running each stage as often as it must would be {found['bound']:.2f} times as fast as the reference; "
        f"reached {found['reached']:.2f}, {100 * found['share']:.0f} % of it. Table in {unit}, without scoring:"
    )
    yield f"  {'stage':14} {'runs':>5} {'ms each':>9} {'at least':>9} {'ours':>9} {'over':>9}"
    for name, (least, spent) in found["rows"].items():
        runs, each = found["times"].get(name, ""), f"{1000 * found['each'][name]:.1f}" if name in found["each"] else ""
        yield f"  {name:14} {runs:>5} {each:>9} {least:9.2f} {spent:9.2f} {spent - least:+9.2f}"
