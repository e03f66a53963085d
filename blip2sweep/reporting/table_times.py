"""Times of a condition on rows: `2026-11-29` is all of that day, `2026-11-29 10:30` all of that minute."""

from __future__ import annotations

import re
from typing import NamedTuple

import pandas as pd

TIME = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?P<second>:\d\d(?P<fraction>\.\d+)?)?)?\s*(?:Z|UTC|[+-]\d\d:?\d\d)?"
)


class Period(NamedTuple):
    """From `start` on, and before `end`. Both are in UTC."""

    start: pd.Timestamp
    end: pd.Timestamp


def period(text: str) -> Period:
    """The time that a text names. Without an offset it is in UTC. Raises ValueError for a text that names none."""
    found = TIME.fullmatch(text)
    if found is None:
        raise ValueError(text)
    start = pd.Timestamp(text)
    start = start.tz_localize("UTC") if start.tzinfo is None else start.tz_convert("UTC")
    lasts = "1ns" if found["fraction"] else "1s" if found["second"] else "1min" if ":" in text[:16] else "1D"
    return Period(start, start + pd.Timedelta(lasts))


def fulfils(values: pd.Series, sign: str, wanted: Period) -> pd.Series:
    """Whether each time is before (`<`), until the end of (`<=`), after (`>`) or from the start of (`>=`) a period."""
    known = pd.to_datetime(values, utc=True)
    if sign in ("<", ">="):
        return known < wanted.start if sign == "<" else known >= wanted.start
    return known < wanted.end if sign == "<=" else known >= wanted.end
