"""Trainings over small models: their samples, and what is left of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blip2sweep.apply.recovery.course import Course, train
from blip2sweep.apply.recovery.group import Alone
from blip2sweep.apply.recovery.kept import tensors
from blip2sweep.apply.recovery.progress import Checkpoints
from blip2sweep.apply.recovery.trainer import Outcome
from blip2sweep.compression.recover.options import chosen
from blip2sweep.compression.recover.spec import Recovery
from blip2sweep.models.images import Features
from blip2sweep.models.load import Loaded
from blip2sweep.tasks import load_task
from blip2sweep.tasks.training import Training, choose
from tests.checkpoints import conf


def recovery(method: str = "lora", **options: Any) -> Recovery:
    """The spec of a section `recover`, of few steps."""
    small = {"steps": 4, "batch_size": 4, "holdout": 0.25, "rank": 4, "learning_rate": 5e-3}
    if method == "full":
        small.pop("rank")
    found = chosen({"method": method, **small, **options})
    assert found is not None
    return found.spec


def samples(kind: str = "caption", n: int = 12, data_dir: Path | None = None, **fields: Any) -> Training:
    """Samples of the training split of the embedded scenes, or of another folder."""
    own = {"data_dir": str(data_dir)} if data_dir else {}
    section = {**conf(f"task/shapes_{kind}"), "split": "train2014", "limit": None, **own}
    data = choose(load_task(section), n, 0)
    prompt = "" if kind == "caption" else "Question: {} Answer:"
    return Training(section, data, n, 0, **{"holdout": 0.25, "prompt": prompt, **fields})


def paths_of(loaded: Loaded, *parts: str) -> tuple[str, ...]:
    """The layers of parts, by name or role."""
    own = [p for p in loaded.anatomy.parts.values() if not parts or p.name in parts or p.role in parts]
    return tuple(x.path for p in own for x in p.linears)


def trained(
    loaded: Loaded, spec: Recovery, paths: Sequence[str], training: Training, teacher: Loaded | None = None,
    path: Path | None = None, pixels: Features | None = None, asked: Any = lambda: False,
) -> Outcome:  # fmt: skip
    course = Course(spec, tuple(paths), training)
    return train(loaded, course, teacher, Alone(), Checkpoints(path, "test"), pixels, asked)


def bits(outcome: Outcome) -> dict[str, bytes]:
    """All that was trained."""
    return {k: x.contiguous().view(-1).view(torch.uint8).numpy().tobytes() for k, x in tensors(outcome.trained).items()}


def state(loaded: Loaded) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in loaded.model.state_dict().items()}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return list(a) == list(b) and all(
        torch.equal(x.view(-1).view(torch.uint8), b[k].view(-1).view(torch.uint8)) for k, x in a.items()
    )


def asks(count: int) -> Any:
    """Says yes when it was asked so often."""

    def each() -> Iterator[bool]:
        yield from [False] * (count - 1)
        while True:
            yield True

    answers = each()
    return lambda: next(answers)


def fewer(spec: Recovery, **fields: Any) -> Recovery:
    return replace(spec, **fields)
