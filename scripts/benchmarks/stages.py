"""Where the time of a whole run goes, stage by stage, against the arithmetic's floor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from transformers import AutoConfig

from blip2sweep.models.anatomy import anatomy
from blip2sweep.planning.plan import Plan
from blip2sweep.tasks import load_task
from scripts.benchmarks import arithmetic
from scripts.benchmarks.arithmetic import Batches, Model, Need, read_prompts
from scripts.benchmarks.ours import Setting
from scripts.benchmarks.rates import rates
from scripts.benchmarks.worker import APPLY, BEGIN, GREEDY

START, SCORING, OTHER, COPIES = "start-up", "scoring", "other", "remembered"
NAMES = {APPLY: "quantizing", "images": "reading images"}
SIZES = {"float32": 4, "bfloat16": 2, "float16": 2}


class Row(NamedTuple):
    """A stage of a whole run. seconds: where several workers run, summed over them. cpu: processor seconds."""

    seconds: float
    cpu: float


def rows(mine: Mapping[str, Any], last: str) -> dict[str, Row]:
    """{stage: row} of a run (ours.py), in the order of computation. last: the name of the language model's stage.

    Of that stage `begin` is the reading of prompts, `greedy` the writing of texts; what is left of it is how cells with the
    same input are found. Scoring runs beside the cells in a process of its own: its seconds are those after the last cell, its
    processor seconds all of them. `other` is between the cells, and in processor seconds the end of the process, too.
    """
    spans = {name: Row(*spent) for name, spent in mine["spans"].items()}
    whole = spans.pop(last, Row(0.0, 0.0))
    inside = [spans.pop(name, Row(0.0, 0.0)) for name in (BEGIN, GREEDY)]
    likelihood, apply = spans.pop("likelihood", None), spans.pop(APPLY, Row(0.0, 0.0))
    found = {START: Row(*mine["start"]), APPLY: apply, **spans, BEGIN: inside[0]}
    found |= {"likelihood": likelihood} if likelihood else {}
    left = [whole[i] - sum(x[i] for x in inside) for i in (0, 1)]
    found |= {GREEDY: inside[1], COPIES: Row(*left)}
    found[SCORING] = Row(mine["after_last_cell"], mine["cpu_seconds"] - mine["own_cpu_seconds"])
    all_seconds, all_cpu = mine["seconds"] * mine["workers"], mine["cpu_seconds"]
    spent = [sum(row[i] for row in found.values()) for i in (0, 1)]
    return {**found, OTHER: Row(all_seconds - spent[0], all_cpu - spent[1])}


def floors(given: Setting, plan: Plan, mine: Mapping[str, Any]) -> dict[str, tuple[float, str]]:
    """{stage: (seconds at least, by what)}, measured now, so right after the run. Empty for a run that stopped early: of it
    a part of the images was asked."""
    needs = {} if mine["asked_images"] < 1 else needed(given, plan, mine)
    shapes = {shape for need in needs.values() for shape in need.products}
    found = rates(shapes, given.device, given.model["dtype"], mine["threads"]) if needs else None
    return {name: (found.floor(need), found.bound_by(need)) for name, need in needs.items()} if found else {}


def needed(given: Setting, plan: Plan, mine: Mapping[str, Any]) -> dict[str, Need]:
    """{stage: what it cannot do without}."""
    config = AutoConfig.from_pretrained(given.folder).to_dict()
    seen, model, data = mine["seen"], Model(given, config, SIZES[given.model["dtype"]]), load_task(given.task)
    images, batches = len(data.images), Batches(mine["batch_size"], mine["sequence_batch_size"])
    found = arithmetic.image_stages(model, plan, images, batches)
    prompts = read_prompts([s.image_id for s in data.samples], seen["prompts"], model.picture)
    references = [len(ids) for ids in seen["references"]]
    found |= arithmetic.language(model, prompts, references, seen["written"], images, batches)
    return {APPLY: arithmetic.quantizing(model, plan), **found}


def table(given: Setting, plan: Plan, mine: Mapping[str, Any]) -> dict[str, Any]:
    """The rows of a run as JSON. by: what `times` of the floor are of: processor seconds on one thread of a CPU, because
    neighbours change seconds; else seconds, in which threads that wait show."""
    found = floors(given, plan, mine)
    own = rows(mine, anatomy(given.model).last_stage)
    by = "cpu" if given.device == "cpu" and mine["threads"] == 1 else "seconds"
    return {
        "by": by, "threads": mine["threads"],
        "rows": {name: row._asdict() | _against(getattr(row, by), found.get(name)) for name, row in own.items()},
    }  # fmt: skip


def _against(spent: float, floor: tuple[float, str] | None) -> dict[str, Any]:
    if floor is None:
        return {}
    return {"floor": floor[0], "bound_by": floor[1], "times": spent / floor[0] if floor[0] else None}


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The table in words."""
    whole = sum(row["seconds"] for row in found["rows"].values())
    of = "processor seconds" if found["by"] == "cpu" else "seconds"
    yield f"  where the time goes ({found['threads']} threads a worker; `times` are {of} over the floor's):"
    yield f"  {'stage':15} {'seconds':>8} {'share':>7} {'cpu s':>8} {'floor s':>8} {'times':>7}  bound by"
    for name, row in found["rows"].items():
        share, floor = f"{100 * row['seconds'] / whole:.1f} %", ""
        if "floor" in row:
            times = "" if row["times"] is None else f"{row['times']:.1f}"
            floor = f"{row['floor']:8.3f} {times:>7}  {row['bound_by']}"
        yield f"  {NAMES.get(name, name):15} {row['seconds']:8.2f} {share:>7} {row['cpu']:8.2f} {floor}".rstrip()
