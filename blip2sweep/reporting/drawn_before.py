"""Pictures that were drawn before. A sweep that is run again has the same one, and to draw takes half a second."""

from __future__ import annotations

import contextlib
import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from blip2sweep.metrics import METRICS
from blip2sweep.version import VERSION

ROWS = "blip2sweep.rows"  # in a PNG's texts: the digest of the rows that it shows
HEAD, END = 4096, b"IEND\xaeB`\x82"  # bytes that texts are within; the last bytes of a whole file
MOST_ROWS = 1000  # of more rows the digest takes as long as the picture
MOST_SWEEPS = 10  # whose pictures are looked at, the newest first


def rows_digest(rows: pd.DataFrame) -> str:
    """The digest of all that a picture of these rows shows, and of what draws it. Empty where the rows are too many."""
    if len(rows) > MOST_ROWS:
        return ""
    shown = rows.drop(columns="sweeps", errors="ignore")  # the sweeps that asked for a cell are not in the picture
    text = f"{VERSION} {version('matplotlib')} {_told(rows)} {shown.to_csv(index=False)}"
    return hashlib.sha256(text.encode() + _code()).hexdigest()


def _told(rows: pd.DataFrame) -> list[str]:
    """What is said of the metrics, which a package from outside may change."""
    own = [m for name, m in sorted(METRICS.items()) if name in rows or name in set(rows.get("metric", ()))]
    return [repr((m.name, m.label, m.unit, m.higher_is_better, m.version, m.order)) for m in own]


@cache
def _code() -> bytes:
    """The modules that draw, so that a picture of other code is drawn anew."""
    return b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))


def drawn_before(path: Path, rows: str) -> bytes | None:
    """A whole picture of these rows in the folder of this one or in one beside it. None where none of the newest is."""
    if not rows:
        return None
    there = sorted(path.parent.parent.glob(f"*/{path.name}"), key=_changed, reverse=True)
    for picture in there[:MOST_SWEEPS]:
        with contextlib.suppress(OSError):
            data = picture.read_bytes()
            if rows.encode() in data[:HEAD] and data.endswith(END):
                return data
    return None


def _changed(path: Path) -> int:
    """When a file last changed, ns; 0 where it is gone."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
