"""The version of what a key means: numbered changes after which the same identity gives other predictions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from blip2sweep.compression.quantize import METHODS
from blip2sweep.compression.step import STEPS, step
from blip2sweep.models.dtypes import HALF, of_part

# One sequence numbers the changes after which the same identity gives other predictions: those of a method
# (`Method.semantics`), of a step (`SEMANTICS` of its module), and all others (this). A change takes the next number.
# Rows of older semantics are marked and not mixed with others.
SEMANTICS = 3
ROUNDED = 4  # scales of layers that are stored in 16 bits are rounded to them before codes are made


def semantics(methods: Iterable[str], kinds: Iterable[str] = (), half: Iterable[str] = ()) -> int:
    """The number of the last change that concerns a cell of these methods and further kinds of steps.

    half: the methods of parts that are stored in 16 bits. Methods and kinds that no longer exist have no number of
    their own.
    """
    own = (METHODS[m].semantics for m in methods if m in METHODS)
    rounded = (ROUNDED for m in half if m in METHODS and METHODS[m].scale_bits is None)
    return max([SEMANTICS, *own, *rounded, *(step(kind).SEMANTICS for kind in kinds if kind in STEPS)])


def semantics_of(entries: Sequence[Mapping[str, str]], stored: str) -> int:
    """The same of a recipe in short form. stored: the row's column, or that of its dtype."""
    listed = [(e["method"], e["target"].partition(":")[0].partition(".")[0]) for e in entries if "step" not in e]
    half = [method for method, part in listed if of_part(stored, part) in HALF]
    return semantics((m for m, _ in listed), (e["step"] for e in entries if "step" in e), half)
