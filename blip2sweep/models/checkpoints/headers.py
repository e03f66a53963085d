"""What a safetensors file says of its tensors. A header counts only where it describes the file exactly.

The format (https://github.com/huggingface/safetensors): 8 bytes with the little-endian length of the header, a JSON
header, then the data, in which the tensors follow each other without holes. Readers differ in what they check. So a
header that overlaps, leaves bytes out or names a tensor twice could mean other weights elsewhere.
"""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn, TypeGuard

from blip2sweep.errors import UserError

LARGEST_HEADER = 100 * 2**20  # bytes, the limit of the format itself
BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E5M2FNUZ": 8, "F8_E4M3FNUZ": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32,
    "C64": 64, "U64": 64, "I64": 64, "F64": 64,
}  # fmt: skip
SHOWN = 3  # mistakes of one file that are listed; the others are counted


class Tensor(NamedTuple):
    """A tensor of a file: safetensors' name of its dtype, its shape, and its first and last byte in the file's data."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class Header(NamedTuple):
    """One safetensors file. raw: its JSON header. data: the offset of the data. size: bytes of the file."""

    path: Path
    raw: bytes
    data: int
    size: int
    tensors: dict[str, Tensor]


def read_header(path: Path) -> Header:
    """The header of a file.

    Raises UserError, one line with all mistakes, where it does not describe the file exactly.
    """
    try:
        raw, size = _raw(path)
        entries = json.loads(raw.decode("utf-8"), object_pairs_hook=once, parse_constant=_no_number)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); right: a file that can") from error
    except (ValueError, RecursionError) as error:
        raise _refused(path, [f"its header is no JSON object ({type(error).__name__}: {shown(error)})"]) from error
    if not isinstance(entries, dict):
        raise _refused(path, [f"its header is a JSON {type(entries).__name__} and no object"])
    metadata = entries.pop("__metadata__", {})
    tensors, wrong = _tensors(entries)
    if not (isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values())):
        wrong.append("__metadata__ is no object of texts")
    length = size - 8 - len(raw)
    wrong = wrong or list(_layout(tensors, length))
    if wrong:
        raise _refused(path, wrong)
    return Header(path, raw, 8 + len(raw), size, tensors)


def shown(name: object) -> str:
    """Text of a file as it may be printed: without control characters, and shortened."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in str(name))
    return text if len(text) <= 160 else f"{text[:150]}…"


def _raw(path: Path) -> tuple[bytes, int]:
    with path.open("rb") as file:
        size = path.stat().st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, LARGEST_HEADER):
            raise ValueError(f"it would be {length} bytes long, the file has {size}")
        return file.read(length), size


def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object whose keys differ. Raises ValueError naming a key that is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} is there twice")
    return found


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _refused(path: Path, wrong: list[str]) -> UserError:
    more = [f"and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else []
    return UserError(
        f"{path}: not a safetensors file: {'; '.join([*wrong[:SHOWN], *more])}; right: download or save it again"
    )


# ---- entries


def _tensors(entries: Mapping[str, object]) -> tuple[dict[str, Tensor], list[str]]:
    tensors, wrong = {}, []
    for name, entry in entries.items():
        try:
            tensors[name] = _tensor(entry)
        except ValueError as error:
            wrong.append(f"tensor {shown(name)}: {shown(error)}")
    return tensors, wrong


def _tensor(entry: object) -> Tensor:
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise ValueError("no object with dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise ValueError(f"dtype {dtype!r} is unknown")
    if not _sizes(shape):
        raise ValueError(f"shape {shape!r} is no list of sizes")
    if not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"data_offsets {offsets!r} are no first and last byte")
    if math.prod(shape) * BITS[dtype] != (offsets[1] - offsets[0]) * 8:
        raise ValueError(f"data_offsets {offsets!r} are not the bytes of {dtype} {shape!r}")
    return Tensor(dtype, tuple(shape), *offsets)


def _sizes(values: object) -> TypeGuard[list[int]]:
    """Whether it is a list of whole numbers from 0 that a file can have. True and 2.0 are not whole numbers."""
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 2**63 for v in values)


def _layout(tensors: dict[str, Tensor], length: int) -> Iterator[str]:
    """The mistakes of tensors that should fill `length` bytes, one after the other."""
    at, before = 0, "the beginning"
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if tensor.start != at:
            kind = "overlap" if tensor.start < at else f"leave {tensor.start - at} bytes out"
            yield f"tensors {shown(before)} and {shown(name)} {kind}"
        at, before = max(at, tensor.end), name
    if at != length:
        kind = "truncated" if length < at else "not all of it belongs to a tensor"
        yield f"{length} bytes of data, its header says {at}: {kind}"


def is_file(path: Path) -> bool:
    """Whether a regular file is there, through links. Raises OSError where that cannot be known."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
