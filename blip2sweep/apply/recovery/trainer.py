"""The loop of a training: batches by seed and step, held-out references now and then, a checkpoint when it is due.

It is deterministic: on a CPU it runs on one thread, on a GPU with deterministic algorithms. Batches are a function of
seed and step, and nothing else is drawn. So an interrupted training that goes on makes the same tensors to the bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blip2sweep.apply.recovery.lessons import LEARNS, Pictures, Texts
from blip2sweep.apply.recovery.loss import likelihood, of_batch
from blip2sweep.apply.recovery.told import Told
from blip2sweep.errors import UserError
from blip2sweep.machine import stopping
from blip2sweep.machine.memory import is_out_of_memory
from blip2sweep.tasks.training import batch

if TYPE_CHECKING:
    from blip2sweep.apply.recovery.group import Group
    from blip2sweep.apply.recovery.learner import Learner
    from blip2sweep.apply.recovery.progress import Checkpoints, Progress
    from blip2sweep.compression.recover.adapters import Trained
    from blip2sweep.compression.recover.spec import Recovery

MEASURED = 10  # how often the held-out loss is measured, besides before the first step
LEAST_SCALE = 1.0


@dataclass(frozen=True, eq=False)
class Outcome:
    """trained: {path: what was made of the layer}. step: the one that was chosen. losses: {step: mean loss (nats a token)
    of the held-out references}, empty where nothing is held out. seconds: of all attempts. reproducible: whether
    every operation has a deterministic kernel here.
    """

    trained: Mapping[str, Trained]
    step: int
    losses: Mapping[int, float]
    seconds: float
    reproducible: bool = True


class Trainer:
    """One training. teacher: what the uncompressed model sees; None trains on the references alone."""

    def __init__(
        self, spec: Recovery, texts: Texts, pictures: Pictures, teacher: Pictures | None, learner: Learner,
        group: Group, checkpoints: Checkpoints,
    ) -> None:  # fmt: skip
        self.spec, self.texts, self.pictures, self.teacher = spec, texts, pictures, teacher
        self.learner, self.group, self.checkpoints = learner, group, checkpoints
        self.told = Told(spec, texts, group)

    def __call__(self, asked: Callable[[], bool] = stopping.asked) -> Outcome:
        """Train from the last checkpoint on.

        asked: whether to stop between two steps. Raises Stopped then, after a checkpoint; MemoryError naming what to
        change; FloatingPointError where the loss is not finite.
        """
        with understandable_oom(self.spec):
            return self._all(self.checkpoints.read(self.learner), asked)

    def _all(self, progress: Progress, asked: Callable[[], bool]) -> Outcome:
        began, before = time.monotonic(), progress.seconds
        self.told.begins(progress)
        while True:
            if progress.step not in progress.losses and progress.step in self._measured:
                self._measure(progress)
            if progress.step == self.spec.steps:
                break
            self._step(progress.step)
            progress.step += 1
            progress.seconds = before + time.monotonic() - began
            self._pause(progress, self.group.agreed(asked()))
        return self._outcome(progress)

    @property
    def _measured(self) -> set[int]:
        if not self.texts.held_out.prompts:
            return set()
        every = max(1, self.spec.steps // MEASURED)
        return {*range(0, self.spec.steps, every), self.spec.steps}

    def _pause(self, progress: Progress, stops: bool) -> None:
        if self.group.rank == 0 and (stops or self.checkpoints.due):
            self.checkpoints.write(progress, self.learner)
        if stops:
            raise stopping.Stopped(goes_on=self.checkpoints.path is not None)

    def _step(self, step: int) -> None:
        chosen = batch(len(self.texts.learnt.prompts), self.spec.batch_size, self.spec.seed, step)
        whole = self.texts.learnt.picked(chosen)
        teacher = self.teacher.logits if self.teacher else None
        read = whole.share(self.group.rank, self.group.count)
        loss = of_batch(self.spec, self.pictures.logits, teacher, read, len(whole.labels))
        if not loss.requires_grad:
            raise UserError(f"recover: no gradient reaches the layers of recover.target; {LEARNS}")
        (loss * self.learner.scale).backward()
        if not self.learner.step(self.group.added(self.learner.gradients()), step):
            self._overflow(step)
        self.told.learns(step + 1, loss)

    def _overflow(self, step: int) -> None:
        """In float16 the next loss is scaled less. Elsewhere a gradient that is not finite is an error."""
        if self.learner.scale <= LEAST_SCALE:
            raise FloatingPointError(
                f"recover: the gradients of step {step} are not finite; right: a smaller recover.learning_rate"
            )
        self.learner.scale /= 2

    def _measure(self, progress: Progress) -> None:
        sums = [torch.zeros(2, dtype=torch.float64, device=self.learner.tensors[0].device)]
        for piece in self.texts.held_out.pieces(self.spec.batch_size):
            own = piece.share(self.group.rank, self.group.count)
            if own.prompts:
                total = likelihood(self.pictures.logits, own)
                sums.append(sums[0].new_tensor([total, len(own.labels)]))
        (found,) = self.group.added([torch.stack(sums).sum(0)])
        loss = float(found[0] / found[1])
        known = [x for x in progress.losses.values() if x == x]
        progress.losses[progress.step] = loss
        self.told.measures(progress.step, loss)
        if progress.best is None or loss < min(known, default=float("inf")):
            progress.best_step, progress.best = progress.step, self.learner.copies()

    def _outcome(self, progress: Progress) -> Outcome:
        last: Sequence[Tensor] = self.learner.copies()
        best, step = (progress.best, progress.best_step) if progress.best else (last, progress.step)
        self.told.keeps(step, progress.losses)
        return Outcome(self.learner.made(best), step, dict(progress.losses), progress.seconds)


@contextmanager
def understandable_oom(spec: Recovery) -> Iterator[None]:
    """Out of memory becomes a MemoryError that names the setting to change. The ledger calls it `oom`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryError(
            f"recover: training ran out of memory with recover.batch_size={spec.batch_size} "
            f"({str(error).splitlines()[0]}); right: a smaller recover.batch_size"
        ) from error
