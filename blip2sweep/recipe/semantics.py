"""The version of what a key means: numbered changes after which the same identity gives other predictions."""

from __future__ import annotations

from collections.abc import Iterable

from blip2sweep.compression.quantize import METHODS
from blip2sweep.compression.step import STEPS, step

# Changes after which the same identity no longer means the same predictions are numbered in one sequence: a method's own
# (`Method.semantics`), a step's (`SEMANTICS` of its module) and all others (this). A change takes the next number. Rows of
# older semantics are marked, not mixed.
SEMANTICS = 3


def semantics(methods: Iterable[str], kinds: Iterable[str] = ()) -> int:
    """The last change that concerns a cell of these methods and further kinds of steps. Those that are no longer known have
    none of their own."""
    own = (METHODS[m].semantics for m in methods if m in METHODS)
    return max([SEMANTICS, *own, *(step(kind).SEMANTICS for kind in kinds if kind in STEPS)])
