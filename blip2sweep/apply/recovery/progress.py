"""How far a training is, kept on disk: a stopped one goes on from there, and makes the same tensors to the bit.

A checkpoint is one safetensors file with a JSON object in its header. It is written under another name and renamed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from blip2sweep.errors import UserError
from blip2sweep.files import write_atomic

if TYPE_CHECKING:
    from blip2sweep.apply.recovery.learner import Learner

SECONDS = 60.0  # between two checkpoints
SHARE = 20  # and at least so many times what the last one took
MOMENTS = ("exp_avg", "exp_avg_sq")


class _Header(TypedDict):
    name: str
    step: int
    updates: int
    scale: float
    best_step: int
    losses: dict[str, float]
    seconds: float


@dataclass(eq=False)
class Progress:
    """step: steps that were made. losses: {step: mean loss of the held-out references}. best: the tensors of the step
    with the least, None where nothing was measured yet. seconds: of all attempts so far."""

    step: int = 0
    losses: dict[int, float] = field(default_factory=dict)
    best_step: int = 0
    best: list[Tensor] | None = None
    seconds: float = 0.0


class Checkpoints:
    """The checkpoint of one training. path: None keeps none. name: everything that decides the result."""

    def __init__(self, path: Path | None, name: str) -> None:
        self.path, self.name = path, name
        self._due, self._wait = time.monotonic() + SECONDS, SECONDS

    @property
    def due(self) -> bool:
        return time.monotonic() >= self._due

    def write(self, progress: Progress, learner: Learner) -> None:
        """A disk that refuses is no reason to stop: there is then no checkpoint."""
        began = time.monotonic()
        if self.path is None:
            return
        try:
            write_atomic(self.path, self._bytes(progress, learner))
        except (UserError, OSError):
            self.remove()
        self._wait = max(SECONDS, SHARE * (time.monotonic() - began))
        self._due = time.monotonic() + self._wait

    def _bytes(self, progress: Progress, learner: Learner) -> bytes:
        states = [learner.optimizer.state.get(x, {}) for x in learner.tensors]
        named = _named("trained", learner.tensors) | _named("best", progress.best or [])
        for moment in MOMENTS:
            named |= _named(moment, [s[moment] for s in states if moment in s])
        header: _Header = {
            "name": self.name, "step": progress.step, "scale": learner.scale, "best_step": progress.best_step,
            "updates": int(states[0]["step"]) if states and "step" in states[0] else 0,
            "losses": {str(k): v for k, v in progress.losses.items()}, "seconds": progress.seconds,
        }  # fmt: skip
        return save(named, {"progress": json.dumps(header)})

    def read(self, learner: Learner) -> Progress:
        """The progress of before, put into the learner; a new one where there is no whole checkpoint of this name."""
        if self.path is None:
            return Progress()
        try:
            with safe_open(self.path, framework="pt", device="cpu") as file:
                header = cast("_Header", json.loads(file.metadata()["progress"]))
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError, KeyError, TypeError):
            return Progress()
        return _restored(header, found, learner) if header.get("name") == self.name else Progress()

    def remove(self) -> None:
        if self.path is not None:
            with suppress(OSError):
                self.path.unlink()


def _named(what: str, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    return {f"{what}.{i:06}": x.detach().cpu().contiguous() for i, x in enumerate(tensors)}


def _restored(header: _Header, found: dict[str, Tensor], learner: Learner) -> Progress:
    def of(what: str) -> list[Tensor]:
        return [found[name] for name in sorted(found) if name.startswith(f"{what}.")]

    learner.set(of("trained"))
    learner.scale = header["scale"]
    for tensor, *moments in zip(learner.tensors, *(of(m) for m in MOMENTS), strict=bool(header["updates"])):
        learner.optimizer.state[tensor] = {
            "step": torch.tensor(float(header["updates"])),
            **{m: x.to(tensor.device) for m, x in zip(MOMENTS, moments, strict=True)},
        }
    losses = {int(k): v for k, v in header["losses"].items()}
    best = [x.to(learner.tensors[0].device) for x in of("best")] or None
    return Progress(header["step"], losses, header["best_step"], best, header["seconds"])
