"""Rows of images: dense where all have the same shape, as BLIP-2's have, otherwise concatenated with their lengths."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Rows:
    """Values of images, one row for each.

    Dense: values (n, …), and row i is values[i]. Ragged: lengths has n numbers, and values is (sum of lengths, …). Row
    i is then the lengths[i] entries (tokens, patches, tiles) after those of the rows before it. further: other tensors
    (n, …) by name, such as grid sizes. Joined rows have zeros behind where the tensors (n, k) of some are shorter.
    """

    values: Tensor
    lengths: tuple[int, ...] | None = None
    further: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.lengths is not None and sum(self.lengths) != len(self.values):
            raise ValueError(f"rows of {sum(self.lengths)} entries together, and {len(self.values)} entries")
        for name, x in self.further.items():
            if len(x) != len(self):
                raise ValueError(f"{name} of {len(x)} rows for {len(self)}")

    def __len__(self) -> int:
        return len(self.values) if self.lengths is None else len(self.lengths)

    def tokens(self, row: int) -> int:
        """The number of entries of a row. For dense rows it is the size of their first dimension."""
        return self.values.shape[1] if self.lengths is None else self.lengths[row]

    def take(self, rows: slice | Sequence[int]) -> Rows:
        """These rows in this order. A slice is a view, and so are ragged rows that follow each other."""
        further = {name: x[rows] for name, x in self.further.items()}
        if self.lengths is None:
            return Rows(self.values[rows], None, further)
        chosen = range(len(self))[rows] if isinstance(rows, slice) else rows
        starts = [0, *accumulate(self.lengths)]
        runs = [self.values[starts[first] : starts[last + 1]] for first, last in _runs(chosen)]
        values = runs[0] if len(runs) == 1 else torch.cat([self.values[:0], *runs])
        return Rows(values, tuple(self.lengths[row] for row in chosen), further)

    def split(self, size: int) -> list[Rows]:
        """Runs of at most `size` rows."""
        return [self.take(slice(start, start + size)) for start in range(0, len(self), size)]

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Rows:
        """The same rows with other values."""
        return Rows(change(self.values), self.lengths, self.further)

    def everywhere(self, change: Callable[[Tensor], Tensor]) -> Rows:
        """The same rows with a change of all tensors, such as a move to another device."""
        return Rows(change(self.values), self.lengths, {name: change(x) for name, x in self.further.items()})

    def padded(self) -> tuple[Tensor, Tensor]:
        """(n, longest, …) with zeros behind shorter rows, and a mask (n, longest) bool of the rows' own entries."""
        if self.lengths is None:
            return self.values, torch.ones(self.values.shape[:2], dtype=torch.bool, device=self.values.device)
        own = torch.tensor(self.lengths, device=self.values.device)[:, None]
        there = torch.arange(max(self.lengths, default=0), device=self.values.device) < own
        padded = self.values.new_zeros((*there.shape, *self.values.shape[1:]))
        padded[there] = self.values
        return padded, there

    # ---- kept by content

    def digest(self) -> bytes:
        """sha256 over shapes, dtypes and bytes. Rows of the same entries with other lengths have another digest."""
        own = _digest(self.values)
        if self.plain:
            return own
        header = {name: _digest(x).hex() for name, x in sorted(self.further.items())}
        return hashlib.sha256(own + json.dumps([self.lengths, header]).encode()).digest()

    def tensors(self) -> tuple[Tensor, ...]:
        """The rows as tensors, which `of_tensors` reads. Dense rows are their values alone."""
        return (self.values,) if self.plain else (self.values, self._header, *self.further.values())

    @classmethod
    def of_tensors(cls, tensors: Sequence[Tensor]) -> Rows:
        values, *rest = tensors
        return cls(values) if not rest else _restored(values, rest[0], rest[1:])

    def named(self, name: str) -> dict[str, Tensor]:
        """The rows as tensors by name, for a safetensors file. Dense rows are one tensor of this name."""
        keys = [name, f"{name}.rows", *(f"{name}.further.{i}" for i in range(len(self.further)))]
        return dict(zip(keys, self.tensors(), strict=False))

    @classmethod
    def of_named(cls, name: str, read: Mapping[str, Tensor]) -> Rows:
        """The inverse of `named`."""
        further = sorted((k for k in read if k.startswith(f"{name}.further.")), key=lambda k: int(k.rpartition(".")[2]))
        return cls.of_tensors([read[k] for k in (name, f"{name}.rows", *further) if k in read])

    @property
    def plain(self) -> bool:
        """Whether the values are everything: dense, and nothing further."""
        return self.lengths is None and not self.further

    @property
    def _header(self) -> Tensor:
        """Lengths and names of further tensors: JSON as uint8."""
        return torch.tensor(list(json.dumps([self.lengths, list(self.further)]).encode()), dtype=torch.uint8)


def joined(parts: Sequence[Rows]) -> Rows:
    """The rows of all parts, one after the other. They are dense where all parts are dense and of one shape."""
    names = {tuple(p.further) for p in parts}
    if len(names) != 1:
        raise ValueError(f"rows that differ in what is further known of them: {sorted(names)}")
    further = {name: _together([p.further[name] for p in parts]) for name in parts[0].further}
    if len({p.values.shape[1:] for p in parts}) == 1 and all(p.lengths is None for p in parts):
        return Rows(torch.cat([p.values for p in parts]), None, further)
    cut = [as_ragged(p) for p in parts]
    return Rows(torch.cat([p.values for p in cut]), tuple(n for p in cut for n in p.lengths or ()), further)


def as_ragged(rows: Rows) -> Rows:
    """The same rows with their lengths, which are equal where they were dense."""
    if rows.lengths is not None:
        return rows
    return Rows(rows.values.flatten(0, 1), (rows.values.shape[1],) * len(rows), rows.further)


def _together(tensors: Sequence[Tensor]) -> Tensor:
    """The rows of all, with zeros behind those whose second dimension is shorter."""
    if len({x.shape[1:] for x in tensors}) > 1 and all(x.dim() == 2 for x in tensors):
        longest = max(x.shape[1] for x in tensors)
        tensors = [torch.nn.functional.pad(x, (0, longest - x.shape[1])) for x in tensors]
    return torch.cat(list(tensors))


def _runs(rows: Iterable[int]) -> list[tuple[int, int]]:
    """(first, last) of each run of numbers that follow each other."""
    runs: list[tuple[int, int]] = []
    for row in rows:
        if runs and runs[-1][1] + 1 == row:
            runs[-1] = (runs[-1][0], row)
        else:
            runs.append((row, row))
    return runs


def _restored(values: Tensor, header: Tensor, further: Sequence[Tensor]) -> Rows:
    lengths, names = json.loads(bytes(header.tolist()))
    return Rows(values, None if lengths is None else tuple(lengths), dict(zip(names, further, strict=True)))


def _digest(x: Tensor) -> bytes:
    head = f"{tuple(x.shape)} {x.dtype}".encode()
    content, values = hashlib.sha256(head), x.detach().cpu().contiguous()
    content.update(values.view(-1).view(torch.uint8).numpy().data)  # read in place: it may be gigabytes
    return content.digest()
