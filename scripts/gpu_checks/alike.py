"""What must be the same: cells that share against cells that do not, the model after a recipe, texts after memory ran out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor

from blip2sweep.backends.torch.evaluate import Evaluation, evaluate
from blip2sweep.machine.memory import is_out_of_memory
from blip2sweep.models.images import Images
from blip2sweep.tasks.predictions import Predictions
from scripts.benchmarks.ties import disagreement
from scripts.gpu_checks.running import Deadline, Found, NotHere
from scripts.gpu_checks.subject import Subject
from scripts.gpu_checks.sweep import Texts, agreement

LEFT = 3 * 2**29  # bytes of the device that are left free while memory is short: less than a full batch takes
MARGIN = 2**28  # bytes that the driver may want beside what it calls free
PIECE = 2**28  # bytes; memory is taken in pieces, since no driver has to have all that is free in one
ROWS_ON_CPU = 2  # in a rehearsal: pictures that are too many at once


def unshared(
    subject: Subject, configs: Sequence[Mapping[str, Any]], known: Texts, found: Found, deadline: Deadline
) -> None:
    """Cells again with `cache=off`. known: their captions of the sweep, where they shared."""
    subject.free()
    backend = subject.behind({"cache": "off"})
    paths = [s.image for s in subject.data.samples]
    found |= {"captions": 0, "differing": 0, "gaps": [], "cells": 0, "seconds_per_cell": None}
    took: list[float] = []
    for job in (j for j in subject.jobs(configs) if j["key"] in known):
        if deadline.near:
            break
        began = time.perf_counter()
        texts = list(backend(job).predictions.text or ())
        took.append(time.perf_counter() - began)
        model = backend.quantized(job).model
        agreement(subject, model, paths, texts, known[job["key"]], found)
        found |= {"cells": len(took), "seconds_per_cell": sum(took) / len(took)}
    assert backend.state is not None
    backend.state.patch.restore()
    found["disagreement"] = disagreement(subject.section["dtype"], found)
    if not took:
        raise NotHere("no cell of the sweep to compare with")


def restored(subject: Subject, configs: Sequence[Mapping[str, Any]], found: Found, deadline: Deadline) -> None:
    """Recipes in and out of the model: which tensors differ in a bit afterwards. All of them are looked at."""
    subject.free()
    assert subject.backend.state is not None
    patch, before = subject.backend.state.patch, {n: p.clone() for n, p in _tensors(subject)}
    found |= {"tensors": len(before), "recipes": []}
    for config in configs:
        if deadline.near:
            break
        changed = len(patch.apply(subject.recipe(config)).changed)
        patch.restore()
        differing = [n for n, p in _tensors(subject) if not torch.equal(_bits(p), _bits(before[n]))]
        found["recipes"].append({"recipe": config, "layers_changed": changed, "differing_after": differing})
    wrong = [r for r in found["recipes"] if r["differing_after"] or not r["layers_changed"]]
    found["disagreement"] = f"{len(wrong)} recipes were not taken back, or did nothing" if wrong else None


def _tensors(subject: Subject) -> Iterator[tuple[str, Tensor]]:
    yield from subject.loaded.model.named_parameters()
    yield from subject.loaded.model.named_buffers()


def _bits(x: Tensor) -> Tensor:
    return x.contiguous().reshape(-1).view(torch.uint8)


# ---- memory


def out_of_memory(subject: Subject, found: Found, deadline: Deadline) -> None:
    """Answer all pictures with room, with too little of it, with none, and with room again."""
    subject.free()
    images = Images(subject.loaded, subject.data)
    texts: dict[str, list[str]] = {}

    def answered(name: str) -> None:
        texts[name] = Predictions.of((made := _evaluated(subject, images)).records).outputs
        own = {k: made.cost[k] for k in ("batch_size", "sequence_batch_size", "oom_halvings", "seconds_total")}
        found[name] = {**own, "differing": sum(a != b for a, b in zip(texts[name], texts["room"], strict=True))}

    answered("room")
    with _short(subject, LEFT):
        answered("short")
    with _short(subject, 0):
        found["none"] = _failure(subject, images)
    answered("room_again")
    found["real"] = subject.device == "cuda"
    found["disagreement"] = _wrong(found, subject.section["dtype"] == "float32")


def _evaluated(subject: Subject, images: Images) -> Evaluation:
    return evaluate(subject.loaded, subject.data, subject.generation, nll_references=0, features=images)


def _failure(subject: Subject, images: Images) -> Found:
    """What comes of a cell for which there is no memory at all."""
    try:
        _evaluated(subject, images)
    except Exception as error:
        return {"error": type(error).__name__, "told_as_out_of_memory": is_out_of_memory(error)}
    return {"error": None, "told_as_out_of_memory": False}


def _wrong(found: Found, exact: bool) -> str | None:
    if not found["short"]["oom_halvings"]:
        return "memory did not run out where it was short"
    if not found["none"]["told_as_out_of_memory"]:
        return "without memory there was another error than out of memory, or none"
    if found["room_again"]["oom_halvings"] > found["room"]["oom_halvings"]:
        return "afterwards there is less room than before"
    differing = found["short"]["differing"] + found["room_again"]["differing"]
    return f"{differing} captions differ" if exact and differing else None


@contextmanager
def _short(subject: Subject, left: int) -> Iterator[None]:
    """Inside, so many bytes of the device are free. On a CPU the first stage refuses large batches, as in a rehearsal."""
    if subject.device != "cuda":
        with _refusing(subject, ROWS_ON_CPU if left else 0):
            yield
        return
    torch.cuda.empty_cache()
    held = list[Tensor]()
    try:
        with suppress(torch.OutOfMemoryError):
            while (free := torch.cuda.mem_get_info()[0] - max(left, MARGIN)) >= PIECE:
                held.append(torch.empty(min(free, 64 * PIECE), dtype=torch.uint8, device="cuda"))
        held += [] if left else _rest()
        yield
    finally:
        held.clear()
        torch.cuda.empty_cache()


def _rest() -> Iterator[Tensor]:
    """All that is left of the device's memory, in pieces down to a page."""
    for size in (2**n for n in range(28, 11, -1)):
        with suppress(torch.OutOfMemoryError):
            while True:
                yield torch.empty(size, dtype=torch.uint8, device="cuda")


@contextmanager
def _refusing(subject: Subject, most: int) -> Iterator[None]:
    def refuse(module: Any, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0].shape[0] > most:
            raise MemoryError("rehearsed")

    tower = subject.loaded.model.get_submodule(subject.loaded.anatomy.stages[0].children[0])
    first = next(m for m in tower.modules() if isinstance(m, torch.nn.Conv2d))
    hook = first.register_forward_pre_hook(refuse)
    try:
        yield
    finally:
        hook.remove()
