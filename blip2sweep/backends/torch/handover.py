"""Weights that the first process of a cell calibrates, and the others take over: they are the same bit for bit.

Calibrating in every process would take as long. On a device whose sums depend on chance the processes would then
evaluate different models.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from blip2sweep.apply.calibration.finished import from_file, to_file
from blip2sweep.backends.shares import ENDED
from blip2sweep.compression.quantize.prepared import Prepared
from blip2sweep.wire.pack import Share

POLL_SECONDS = 0.02
T = TypeVar("T")


class Handover:
    """Of one cell. share: this process's; None where it runs the cell alone. device: of the tensors.

    Each call is one calibration. All processes call it in the same order.
    """

    def __init__(self, share: Share | None = None, device: torch.device | None = None) -> None:
        self.share, self.device, self.calls = share, device, 0

    def shared(
        self, made: Callable[[], T], write: Callable[[Path, T], None], read: Callable[[Path, torch.device], T]
    ) -> T:
        """What the first process of the cell has calibrated or trained. made: called in that process alone.

        write, read: a file with it. Raises RuntimeError where the first process ends before.
        """
        if self.share is None:
            return made()
        path = Path(self.share["folder"]) / f"{self.calls}.safetensors"
        self.calls += 1
        if self.share["rank"]:
            self._wait(path)
            return read(path, self.device or torch.device("cpu"))
        return _given(path, made(), write)

    def __call__(self, calibrated: Callable[[], dict[str, Prepared]]) -> dict[str, Prepared]:
        """`shared` of what is calibrated."""
        return self.shared(calibrated, to_file, from_file)

    @property
    def gives(self) -> bool:
        """Whether other processes wait for what this one calibrates."""
        return self.share is not None and self.share["rank"] == 0

    def _wait(self, path: Path) -> None:
        while not path.exists():
            ended = not path.parent.exists() or (path.parent / ENDED).exists()  # the folder goes when the cell is over
            if ended and not path.exists():
                raise RuntimeError("the first process of the cell ended before it had calibrated")
            time.sleep(POLL_SECONDS)


def _given(path: Path, made: T, write: Callable[[Path, T], None]) -> T:
    temporary = path.with_suffix(".tmp")
    write(temporary, made)
    temporary.replace(path)
    return made
