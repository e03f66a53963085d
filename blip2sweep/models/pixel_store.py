"""The pixels of all images of a task, in memory or in a memory-mapped temporary file."""

from __future__ import annotations

import math
import os
import tempfile

import torch
from torch import Tensor

from blip2sweep.machine.memory import free_host_bytes
from blip2sweep.models.ragged import Rows, as_ragged, joined

PREFIX = "blip2sweep-pixels-"
SHARE = 4  # one part in so many of the free memory is for pixels; more of them are in a file


class PixelStore:
    """Rows of at most n images.

    Dense rows of one shape are written to their final place. Others are joined at the end; what is more than a share of
    the free memory is appended to a file. kept: False once the disk has no room for that; nothing is stored then.
    """

    def __init__(self, n: int) -> None:
        self.n, self.filled, self.kept = n, 0, True
        self._room: Tensor | None = None
        self._beside: list[Rows] = []  # what is further known of the rows in the room
        self._parts: list[Rows] = []
        self._file: _File | None = None

    def add(self, rows: Rows) -> None:
        if not self.kept:
            return
        if not (self.filled or self._parts or self._file) and rows.lengths is None:
            self._room = _allocated(self.n, rows.values)
        if self._room is None or rows.lengths is not None or rows.values.shape[1:] != self._room.shape[1:]:
            self._add_other(rows)
            return
        self._room[self.filled : self.filled + len(rows)] = rows.values
        self._beside.append(_further(rows))
        self.filled += len(rows)

    def rows(self) -> Rows | None:
        """All of them. None where there are none."""
        if self._file is not None:
            return self._file.rows()
        parts = self._emptied()
        return parts[0] if len(parts) == 1 else joined(parts) if parts else None

    def _add_other(self, rows: Rows) -> None:
        self._parts = [*self._emptied(), rows]
        if self._file is None and sum(p.values.nbytes for p in self._parts) <= free_host_bytes() // SHARE:
            return
        try:
            self._file = self._file or _File()
            for part in self._parts:
                self._file.append(part)
        except OSError:
            self.kept, self._file = False, None
        self._parts = []

    def _emptied(self) -> list[Rows]:
        """All parts so far. The allocated room is given up."""
        first = []
        if self._room is not None:
            first = [Rows(self._room[: self.filled], None, joined(self._beside).further)]
        self._room, self._beside = None, []
        return [*first, *self._parts]


class _File:
    """Ragged rows whose values are appended to a temporary file. It has no name, so it goes with the process."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile(prefix=PREFIX)  # noqa: SIM115
        self.beside: list[Rows] = []
        self.lengths: list[int] = []
        self.like: Tensor | None = None

    def append(self, rows: Rows) -> None:
        """Raises OSError where the disk is full, and ValueError for entries of another shape or dtype."""
        values = as_ragged(rows).values.contiguous()
        like = values[:0] if self.like is None else self.like
        if (values.shape[1:], values.dtype) != (like.shape[1:], like.dtype):
            raise ValueError(f"rows of entries {tuple(values.shape[1:])} and {tuple(like.shape[1:])}")
        self.file.write(values.view(-1).view(torch.uint8).numpy().data)
        self.file.flush()
        self.like = like.clone()
        self.lengths.extend(as_ragged(rows).lengths or ())
        self.beside.append(_further(rows))

    def rows(self) -> Rows:
        assert self.like is not None
        shape = (sum(self.lengths), *self.like.shape[1:])
        name = f"/proc/self/fd/{self.file.fileno()}"
        mapped = torch.from_file(name, shared=True, size=math.prod(shape), dtype=self.like.dtype)
        return Rows(mapped.reshape(shape), tuple(self.lengths), joined(self.beside).further)


def _further(rows: Rows) -> Rows:
    """What is further known of rows, without their values."""
    return Rows(torch.empty(len(rows), 0), None, rows.further)


def _allocated(n: int, like: Tensor) -> Tensor:
    """Room for n images (n, …) with the dtype of `like`."""
    shape, bytes_ = (n, *like.shape[1:]), n * like[:1].nbytes
    if bytes_ < free_host_bytes() // SHARE:
        return torch.empty(shape, dtype=like.dtype, pin_memory=like.is_pinned())
    with tempfile.NamedTemporaryFile(prefix=PREFIX) as file:  # mapped, so it may lose its name
        try:
            os.posix_fallocate(file.fileno(), 0, bytes_)  # on a full disk, writing a missing page ends the process
        except OSError:
            return torch.empty(shape, dtype=like.dtype)
        return torch.from_file(file.name, shared=True, size=math.prod(shape), dtype=like.dtype).reshape(shape)
