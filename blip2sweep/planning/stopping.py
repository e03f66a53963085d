"""Which cells of a plan may stop before they have seen all images (`evaluation.stop`), and why the others do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, cast

from blip2sweep.backends.backend import in_rounds
from blip2sweep.console.remarks import many
from blip2sweep.errors import UserError
from blip2sweep.metrics import METRICS
from blip2sweep.metrics.stopping import FIRST, Rule, can_stop, is_stricter
from blip2sweep.planning.cell import Cell
from blip2sweep.recipe.compact import targets
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.stopped import told
from blip2sweep.wire.stopping import StopRequest

if TYPE_CHECKING:
    from blip2sweep.planning.plan import Plan

NONE, KNOWN, VERDICT = "none", "known", "verdict"
MARGINS = {KNOWN: "half_width", VERDICT: "tolerance"}
DEFAULT = 0.05
COMPARED = "baselines and controls"


def rule_of(config: Mapping[str, object]) -> Rule | None:
    """The rule of a composed config; None where all cells see all images. Raises UserError for a value that is none, and
    for a margin that the rule does not have."""
    section = cast("Mapping[str, object]", config.get("evaluation") or {})
    stop = str(section.get("stop") or NONE)
    if stop != NONE and stop not in MARGINS:
        raise UserError(f"evaluation.stop={stop}: no such rule; right: none, known or verdict")
    typed = {name: section[name] for name in MARGINS.values() if section.get(name) is not None}
    margins = {name: _share(f"evaluation.{name}", value) for name, value in typed.items()}
    for name in margins.keys() - {MARGINS.get(stop)}:
        other = next(rule for rule, own in MARGINS.items() if own == name)
        raise UserError(
            f"evaluation.{name}={typed[name]}: evaluation.stop={stop} has no such margin, so it would be ignored; right: "
            f"evaluation.stop={other}, or leave it out"
        )
    if stop == NONE:
        return None
    return Rule(cast("Literal['known', 'verdict']", stop), margins.get(MARGINS[stop], DEFAULT))


def _share(name: str, value: object) -> float:
    """A share of the baseline, written as `5%` or `0.05`. Raises UserError."""
    text = str(value).strip()
    try:
        found = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        found = 0.0
    if not 0 < found < 1:  # NaN neither
        raise UserError(f"{name}={value}: right: more than 0 % and less than 100 %, such as 5% or 0.05")
    return round(found, 6)


@dataclass(frozen=True)
class Stopping:
    """request: what workers are asked; None where no rule is asked for. whole: {why cells see all images: how many}.
    goes_on: cells that stopped before and go on. done: `told` of those that stopped and are done."""

    request: StopRequest | None = None
    whole: Mapping[str, int] = field(default_factory=dict)
    goes_on: int = 0
    done: str = ""

    @property
    def lines(self) -> list[str]:
        """`evaluation.stop=known: 6 cells may stop, once known to ±5 % of the baseline; on all images: 1 (baselines and
        controls)`, and how many cells go on."""
        found = [f"{many(self.goes_on, 'cell')} stopped earlier than is asked for now, to go on from there"]
        return [*([_told(self.request, self.whole)] if self.request else []), *(found if self.goes_on else [])]


def _told(request: StopRequest, whole: Mapping[str, int]) -> str:
    margin = f"{100 * request['margin']:g} %"
    if several := {request["margin"], *request.get("margins", {}).values()} if request.get("margins") else ():
        margin = f"{100 * min(several):g} to {100 * max(several):g} %"
    known, verdict = f"known to ±{margin} of the baseline", f"they surely lose less than {margin}, or surely more"
    others = "; on all images: " + ", ".join(f"{n} ({why})" for why, n in whole.items()) if whole else ""
    may = f"{many(len(request['images']), 'cell')} may stop, once {known if request['stop'] == KNOWN else verdict}"
    return f"evaluation.stop={request['stop']}: {may}{others}"


def stopping_of(plan: Plan, config: Mapping[str, object], again: Collection[str]) -> Stopping:
    """Which cells of a plan may stop, each by the rule of its own jobs. again: keys of cells that are computed again although
    they are done. Raises UserError for jobs of both kinds of rules."""
    rules = _rules(plan)
    asked = {rule for rule in rules.values() if rule}
    if not asked:
        return Stopping()
    if len(kinds := {rule.stop for rule in asked}) > 1:
        raise UserError(
            f"evaluation.stop={','.join(sorted(kinds))}: cells of one sweep stop by one rule; right: one of them"
        )
    compared, whole, images = {*plan.baselines, *plan.controls}, Counter[str](), dict[str, int]()
    floor = bool(cast("Mapping[str, object]", config.get("analysis") or {}).get("noise_floor"))
    for key, cell in plan.cells.items():
        why = COMPARED if key in compared else "--rerun" if key in again else why_whole(cell, floor)
        if why or rules.get(key) is None:
            whole[why or f"evaluation.stop={NONE}"] += 1
        else:
            images[key] = len(cell.task.images)
    first = rule_of(config) or max(asked)  # of several the roughest, whatever the order of a set
    own = {key: rule.margin for key, rule in rules.items() if rule and key in images and rule.margin != first.margin}
    request: StopRequest = {"stop": first.stop, "margin": first.margin, "images": images}
    return Stopping({**request, "margins": own} if own else request, whole)


def _rules(plan: Plan) -> dict[str, Rule | None]:
    """{key: the rule of its jobs, of several the strictest}."""
    found = dict[str, Rule | None]()
    for key, job in zip(plan.keys, plan.jobs, strict=True):
        if key is not None:
            rule = rule_of(job.config)
            found[key] = rule if key not in found or is_stricter(rule, found[key]) else found[key]
    return found


def with_results(stopping: Stopping, plan: Plan, ledger: Ledger) -> Stopping:
    """The same with what the ledger has: cells that stopped before, and are done or go on."""
    own = ((k, ledger.attempts[k].result) for k in plan.cells if k in ledger.attempts and k not in plan.again)
    there = {key: result for key, result in own if result and "stopped" in result}
    enough = [result for key, result in there.items() if key in plan.done]
    return replace(stopping, goes_on=len(there) - len(enough), done=told(enough))


def why_whole(cell: Cell, floor: bool = False) -> str | None:
    """Why a cell sees all images, whatever the rule; None where it may stop. floor: whether calibrated cells are run a
    second time."""
    return next(_reasons(cell, floor), None)


def _reasons(cell: Cell, floor: bool) -> Iterator[str]:
    task, backend = cell.task, cell.backend["name"] if cell.backend else None
    metric = METRICS.get(task.main_metric)
    if cell.chat is not None:
        yield "they ask a chat model"
    if "match" in task.rules.REQUESTS:
        yield "every picture is compared with every text"
    if cell.training is not None:
        yield "they are trained"
    if any(entry.get("packed") for entry in targets(cell.recipe)):
        yield "packed layers are measured"
    if floor and cell.calibration is not None:
        yield "analysis.noise_floor runs them twice"
    if not in_rounds(backend):
        yield f"backend={backend} answers a cell in one piece"
    if metric is None or not can_stop(metric):
        yield f"{task.main_metric or 'their metric'} is no mean over images of which more is better"
    if task.on_bad_image == "skip":
        yield "task.on_bad_image=skip"
    if len(task.images) <= FIRST:
        yield f"{FIRST} images or fewer"
