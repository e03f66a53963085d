"""The lines of a training in the log of its worker: where it begins, how far it is, and the step that it keeps."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from blip2sweep.console.work_log import tell

if TYPE_CHECKING:
    from blip2sweep.apply.recovery.group import Group
    from blip2sweep.apply.recovery.lessons import Texts
    from blip2sweep.apply.recovery.progress import Progress
    from blip2sweep.compression.recover.spec import Recovery

SECONDS = 30.0  # between two lines


class Told:
    """Tells of one training. Of several processes the first one does."""

    def __init__(self, spec: Recovery, texts: Texts, group: Group) -> None:
        self.steps, self.batch_size, self.group = spec.steps, spec.batch_size, group
        self.learnt, self.held_out = (len(read.prompts) for read in (texts.learnt, texts.held_out))
        self._last = time.monotonic()

    def begins(self, progress: Progress) -> None:
        on = f"{self.steps} steps of {self.batch_size}, {self.learnt} references, {self.held_out} held out"
        self._tell(f"{f'goes on at step {progress.step}' if progress.step else 'begins'}: {on}")

    def learns(self, step: int, loss: Tensor) -> None:
        """After a step, if the last line is old. The loss of one process of several is of its share, so it is not told."""
        if time.monotonic() - self._last >= SECONDS:
            mean = f", loss {float(loss.detach()):.4f}" if self.group.count == 1 else ""
            self._tell(f"step {step} of {self.steps}{mean}")

    def measures(self, step: int, loss: float) -> None:
        self._tell(f"step {step} of {self.steps}, held-out loss {loss:.4f}")

    def keeps(self, step: int, losses: Mapping[int, float]) -> None:
        why = f"the least held-out loss, {losses[step]:.4f}" if losses else "the last: nothing is held out"
        self._tell(f"keeps step {step} of {self.steps}, {why}")

    def _tell(self, what: str) -> None:
        self._last = time.monotonic()
        if self.group.rank == 0:
            tell(f"recover: {what}")
