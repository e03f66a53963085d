"""Parameters of a test of which `make test` takes some; all are run by `make test-all`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def quick(values: Iterable[Any], *chosen: object) -> list[Any]:
    """The values, as `parametrize` takes them; all but the chosen ones, by default the first, are `thorough`. A tuple is
    one value for each of several names."""
    known = [*values]
    own = chosen or (known[0],)
    return [x if x in own else _thorough(x) for x in known]


def _thorough(value: object) -> object:
    several = value if isinstance(value, tuple) else (value,)
    return pytest.param(*several, marks=pytest.mark.thorough)
