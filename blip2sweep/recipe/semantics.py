"""The version of what a key means: numbered changes after which the same identity gives other predictions."""

from __future__ import annotations

from collections.abc import Iterable

from blip2sweep.compression.quantize import METHODS
from blip2sweep.compression.step import STEPS, step

# One sequence numbers the changes after which the same identity gives other predictions: those of a method
# (`Method.semantics`), of a step (`SEMANTICS` of its module), and all others (this). A change takes the next number.
# Rows of older semantics are marked and not mixed with others.
SEMANTICS = 3


def semantics(methods: Iterable[str], kinds: Iterable[str] = ()) -> int:
    """The number of the last change that concerns a cell of these methods and further kinds of steps.

    Methods and kinds that no longer exist have no number of their own.
    """
    own = (METHODS[m].semantics for m in methods if m in METHODS)
    return max([SEMANTICS, *own, *(step(kind).SEMANTICS for kind in kinds if kind in STEPS)])
