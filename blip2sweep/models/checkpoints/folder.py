"""The weight files of a folder: parameters, dtypes, shapes, and a fingerprint that no other weights have."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from blip2sweep.errors import UserError
from blip2sweep.models.checkpoints.content import Content, content, scan
from blip2sweep.models.checkpoints.files import INDEX, read_index, side_files, weight_files
from blip2sweep.models.checkpoints.headers import BITS, SHOWN, Header, Tensor, read_header, shown
from blip2sweep.models.checkpoints.packed import Packed, packed_layers, plain_tensors
from blip2sweep.models.checkpoints.quantized import quantized_in

WHOLE_FILE = 64 * 2**20  # bytes up to which a weights file is read each time, and not remembered


@dataclass(frozen=True)
class Weights:
    """The weight files of a folder.

    params: numbers in floating tensors, tied ones once. dtypes: of those tensors. tensors: all of them, by name. Layers
    that are stored as integers count, and are in `tensors`, as the plain weights that they mean; packed: {module: what
    is stored of it}. bits: all that is stored, tied tensors once.
    """

    folder: Path
    headers: tuple[Header, ...]
    tensors: dict[str, Tensor]
    params: int
    dtypes: tuple[str, ...]
    packed: dict[str, Packed]
    bits: int

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over names, sizes, headers and content of the weights, and over the side files. It reads all of them.

        Headers and sizes alone would be equal for two fine-tunings of one model. Samples of the content would miss some
        differences.
        """
        total = hashlib.sha256()
        for chunk in (c for h in self.headers for c in (h.path.name.encode(), h.raw, *_hashed(h))):
            _add(total, chunk)
        for path in side_files(self.folder):
            _add(total, path.relative_to(self.folder).as_posix().encode())
            _add(total, read_bytes(path))
        return total.hexdigest()

    def contents(self) -> list[Content]:
        """The content of each file."""
        return [content(h) if h.size > WHOLE_FILE else scan(h) for h in self.headers]


def inspect(folder: Path, tied: Iterable[Sequence[str]] = ()) -> Weights:
    """Read the headers of a checkpoint folder, with a single file or shards.

    tied: groups of names that are one tensor, which counts once. Raises UserError for a folder without safetensors, for
    files whose headers do not describe them, and for an index that disagrees with its shards.
    """
    headers = tuple(read_header(path) for path in weight_files(folder))
    _check_index(folder, headers)
    stored = {name: tensor for h in headers for name, tensor in h.tensors.items()}
    packed = _packed(folder, headers, stored)
    entries = plain_tensors(stored, packed)
    floating = {name: t for name, t in entries.items() if t.dtype.startswith(("F", "BF"))}
    again = {name for group in tied for name in [n for n in group if n in floating][1:]}
    return Weights(
        folder=folder,
        headers=headers,
        tensors=entries,
        params=sum(math.prod(t.shape) for name, t in floating.items() if name not in again),
        dtypes=tuple(sorted({t.dtype for t in floating.values()})),
        packed=packed,
        bits=sum(math.prod(t.shape) * BITS[t.dtype] for name, t in stored.items() if name not in again),
    )


def _packed(folder: Path, headers: Sequence[Header], stored: Mapping[str, Tensor]) -> dict[str, Packed]:
    """The layers that config.json says are integers; none where it says nothing that is understood."""
    holder = {name: h for h in headers for name in h.tensors}
    said = quantized_in(folder)
    return packed_layers(stored, said, folder, lambda name: read_tensor(holder[name], name)) if said else {}


def read_tensor(header: Header, name: str) -> bytes:
    """The bytes of one tensor of a file. Raises UserError where it cannot be read."""
    tensor = header.tensors[name]
    try:
        with header.path.open("rb") as file:
            file.seek(header.data + tensor.start)
            return file.read(tensor.end - tensor.start)
    except OSError as error:
        raise UserError(f"{header.path}: cannot be read ({error.strerror}); right: a file that can") from error


def _check_index(folder: Path, headers: Sequence[Header]) -> None:
    index = read_index(folder)
    if not index:
        return
    held = [(name, h.path.name) for h in headers for name in h.tensors]
    wrong = [
        f"{shown(n)} is in {f}, the index says {shown(index.get(n, 'nothing'))}" for n, f in held if index.get(n) != f
    ]
    names = {name for name, _ in held}
    wrong += [f"{shown(n)} is not in {shown(f)}" for n, f in index.items() if n not in names]
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise UserError(
            f"{folder / INDEX}: its shards disagree: {'; '.join(wrong[:SHOWN])}{more}; right: the shards it was saved with"
        )


def _hashed(header: Header) -> Iterator[bytes]:
    yield header.size.to_bytes(8, "little")
    yield read_bytes(header.path) if header.size <= WHOLE_FILE else bytes.fromhex(content(header).sha256)


def read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); right: a file that can") from error


def _add(total: hashlib._Hash, chunk: bytes) -> None:
    total.update(len(chunk).to_bytes(8, "little"))  # so that no two lists of chunks run together
    total.update(chunk)
