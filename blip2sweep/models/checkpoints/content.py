"""The content of large weight files: hashed whole and searched for NaN and Inf, in one pass.

A file is read once while its path, size, times and inode stay the same. The result is remembered in the user's cache
folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import NamedTuple

from blip2sweep.cache import disk as cache
from blip2sweep.canonical import digest
from blip2sweep.console import patience
from blip2sweep.errors import UserError
from blip2sweep.models.checkpoints.headers import Header, Tensor

STORE = "checkpoints"  # in the user's cache
VERSION = 1  # of the digest
PIECE = 8 * 2**20  # bytes that one thread reads at a time
SETTLED = 2.0  # seconds after which a further change must show in a file's times
HALF_OVERFLOWS = 65520.0  # from here on a number rounds to infinity in float16


class Format(NamedTuple):
    """A floating dtype as unsigned integers.

    mask: the bits of the magnitude. infinite: the first magnitude that is NaN or Inf. overflows: the first that is
    infinite in float16.
    """

    unsigned: str
    mask: int
    infinite: int
    overflows: int


FORMATS = {
    "BF16": Format("<u2", 0x7FFF, 0x7F80, 0x4780),
    "F16": Format("<u2", 0x7FFF, 0x7C00, 0x7C00),
    "F32": Format("<u4", 0x7FFFFFFF, 0x7F800000, 0x477FF000),
    "F64": Format("<u8", 0x7FFFFFFFFFFFFFFF, 0x7FF0000000000000, 0x40EFFE0000000000),
    "F8_E4M3": Format("u1", 0x7F, 0x7F, 0x7F),
    "F8_E5M2": Format("u1", 0x7F, 0x7C, 0x7C),
}


@dataclass(frozen=True)
class Content:
    """sha256 of a file's data, the tensors that hold NaN or Inf, and those with numbers beyond float16."""

    sha256: str
    not_finite: tuple[str, ...]
    beyond_half: tuple[str, ...]


def content(header: Header) -> Content:
    """The content of a file, from the cache where the file is unchanged.

    Raises UserError where the file cannot be read, or changes while it is read.
    """
    name = _name(header)
    store = cache.of_user(STORE)
    found = store.get(name) if store else None
    if found is not None:
        fields = json.loads(found)
        return Content(fields["sha256"], tuple(fields["not_finite"]), tuple(fields["beyond_half"]))
    began = time.time()
    made = scan(header)
    if _name(header) != name:
        raise UserError(f"{header.path}: it changed while it was read; right: wait until it is whole")
    stat = header.path.stat()
    if store and began - max(stat.st_mtime, stat.st_ctime) > SETTLED:
        store.put(name, json.dumps(asdict(made)).encode())
    return made


def _name(header: Header) -> str:
    stat = header.path.stat()
    times = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    return digest(["content", VERSION, os.path.realpath(header.path), *times, hashlib.sha256(header.raw).hexdigest()])


def scan(header: Header) -> Content:
    """Read a file's data once. The sha256 is over those of its pieces, in the order of their tensors."""
    total, largest, pieces = hashlib.sha256(), dict.fromkeys(header.tensors, 0), list(_pieces(header))
    message = f"reading {header.path} once ({header.size / 1e9:.1f} GB), to know these weights from all others"
    try:
        descriptor = os.open(header.path, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"{header.path}: cannot be read ({error.strerror}); right: a file that can") from error
    try:
        with ThreadPoolExecutor(_threads()) as pool:
            found = pool.map(lambda piece: _piece(descriptor, header, *piece), pieces)
            for name, hashed, magnitude in patience.shown(found, len(pieces), message):
                total.update(hashed)
                largest[name] = max(largest[name], magnitude)
    except OSError as error:
        raise UserError(f"{header.path}: cannot be read ({error.strerror}); right: a file that can") from error
    finally:
        os.close(descriptor)
    formats = {n: FORMATS[t.dtype] for n, t in header.tensors.items() if t.dtype in FORMATS}
    broken = tuple(sorted(n for n, f in formats.items() if largest[n] >= f.infinite))
    beyond = tuple(sorted(n for n, f in formats.items() if largest[n] >= f.overflows and n not in broken))
    return Content(total.hexdigest(), broken, beyond)


def _threads() -> int:
    return min(8, len(os.sched_getaffinity(0)))


def _pieces(header: Header) -> Iterator[tuple[str, Tensor, int, int]]:
    """(name of the tensor, tensor, first byte in the file, length) of pieces that hold whole numbers."""
    for name, tensor in sorted(header.tensors.items(), key=lambda item: (item[1].start, item[1].end, item[0])):
        for start in range(tensor.start, tensor.end, PIECE):
            yield name, tensor, header.data + start, min(PIECE, tensor.end - start)


def _piece(descriptor: int, header: Header, name: str, tensor: Tensor, at: int, length: int) -> tuple[str, bytes, int]:
    """(name, sha256, largest magnitude as an integer)."""
    import numpy as np

    data = os.pread(descriptor, length, at)
    if len(data) != length:
        raise UserError(f"{header.path}: it became shorter while it was read; right: wait until it is whole")
    kind = FORMATS.get(tensor.dtype)
    numbers = np.frombuffer(data, kind.unsigned) if kind else None
    # The mask has the array's own type: a wider one would double memory and time.
    largest = int((numbers & numbers.dtype.type(kind.mask)).max()) if kind and numbers is not None else 0
    return name, hashlib.sha256(data).digest(), largest
