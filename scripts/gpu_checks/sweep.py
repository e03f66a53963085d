"""A slice of a grid through the back end, against the published study's procedure on some of its cells."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from scripts.benchmarks import costs, reference
from scripts.benchmarks.ties import disagreement, parting
from scripts.gpu_checks.running import Deadline, Found
from scripts.gpu_checks.subject import Subject

if TYPE_CHECKING:
    from blip2sweep.wire.pack import CellJob

LOOKED_AT = 20  # captions of a cell that differ, whose gap is looked up
MISSED = {"hits_vision_blocks": 0, "hits_connector": 0, "hits_language": 0}
Texts = dict[str, list[str]]  # {key of a cell: its captions}


def sweep(
    subject: Subject, configs: Sequence[Mapping[str, Any]], peak: float, texts: Texts, found: Found, deadline: Deadline
) -> None:
    """Run the cells, as many as the time allows. Pictures are decoded in the first one.

    peak: operations a second of the device at best. texts: receives the captions. found: receives seconds, shares of the
    floor and batch sizes.
    """
    jobs, data = subject.jobs(configs), subject.data
    subject.backend.expect(jobs)
    spent = list[dict[str, Any]]()
    began = time.perf_counter()
    for job in jobs:
        if deadline.near and spent:
            break
        answered = subject.backend(job)
        texts[job["key"]] = list(answered.predictions.text or ())
        spent.append(dict(answered.cost))
        if answered.noise is not None:
            found["other_batch_size"] = answered.noise.summary
        found |= _summary(subject, spent, len(data.images), time.perf_counter() - began, peak)


def _summary(subject: Subject, spent: Sequence[dict[str, Any]], images: int, seconds: float, peak: float) -> Found:
    """seconds: of all cells, with what is between them."""
    mine = {**MISSED, "workers": 1, "cells": len(spent), **costs.summed(spent)}
    answered = images * len(spent)
    shares = costs.shares(subject.section["config"], subject.new_tokens, mine, answered, peak)
    written = answered - mine["hits_language"]
    return {
        "model": subject.section["name"], "dtype": subject.section["dtype"], "cells": len(spent), "images": images,
        "new_tokens": subject.new_tokens, "all_seconds": seconds, "seconds_per_cell": seconds / len(spent),
        "captions_per_second": written / mine["seconds_language"] if mine.get("seconds_language") else None,
        "images_per_second": answered / seconds, "floor": shares,
        "oom_halvings": sum(c.get("oom_halvings", 0) for c in spent), **mine,
    }  # fmt: skip


def compared(
    subject: Subject, jobs: Sequence[CellJob], texts: Texts, images: int, found: Found, deadline: Deadline
) -> None:
    """The published procedure on the first `images` pictures of the cells: quantize, then one picture after the other.
    Loading and scoring are left out of both sides, though the procedure does both for every cell."""
    subject.free()
    twin, paths = copy.deepcopy(subject.loaded.model), [s.image for s in subject.data.samples[:images]]
    found |= {"captions": 0, "differing": 0, "gaps": [], "cells": [], "not_counted": "loading, scoring"}
    for job in jobs:
        if deadline.near:
            break
        twin.load_state_dict(subject.loaded.model.state_dict())
        theirs, steps = _procedure(subject, twin, job, paths, deadline)
        found["cells"].append({**steps, "images": len(theirs), "quantized": len(job["recipe"]) > 0})
        agreement(subject, twin, paths, theirs, texts.get(job["key"], [])[: len(theirs)], found)
    whole = len(subject.data.images)
    each = [c["quantize"] + c["generate"] * whole / c["images"] for c in found["cells"] if c["images"]]
    if each:
        found["seconds_per_cell"] = sum(each) / len(each)
        found["images_per_second"] = whole / found["seconds_per_cell"]
    found["disagreement"] = disagreement(subject.section["dtype"], found)


def _procedure(
    subject: Subject, twin: Any, job: CellJob, paths: Sequence[Any], deadline: Deadline
) -> tuple[list[str], dict[str, float]]:
    """(captions, seconds of quantizing and of generating). The first picture is captioned once more before: it warms up."""
    clock, processor = [subject.now()], subject.loaded.processor
    reference.quantize(twin, subject.layers(job))
    clock.append(subject.now())
    caption = lambda path: reference.caption(twin, processor, path, subject.text, subject.new_tokens)  # noqa: E731
    caption(paths[0])
    clock.append(subject.now())
    theirs = [caption(path) for path in paths if not deadline.near]
    clock.append(subject.now())
    return theirs, {"quantize": clock[1] - clock[0], "generate": clock[3] - clock[2]}


def agreement(
    subject: Subject, model: Any, paths: Sequence[Any], theirs: Sequence[str], ours: Sequence[str], found: Found
) -> None:
    """Add to `found` the captions that differ, how close the tokens were at which they part, and what rounding explains of
    that. model: with the cell's recipe in it."""
    differing = [i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b]
    found["captions"] += min(len(theirs), len(ours))
    found["differing"] += len(differing)
    exact = _exact(model) if differing else None
    for i in differing[:LOOKED_AT]:
        pair = (paths[i], theirs[i], ours[i])
        gap, explained = parting(model, exact, subject.loaded.processor, subject.text, pair)
        found["gaps"].append(round(gap, 3))
        found.setdefault("explained", []).append(round(explained, 3))


def _exact(model: Any) -> Any | None:
    """A copy in float32; None where there is no room for it, or where it is in float32 already."""
    if model.dtype == torch.float32:
        return None
    try:
        return copy.deepcopy(model).float()
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None
