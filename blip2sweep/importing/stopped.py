"""What a table of this package says of a cell that stopped early, read back from its file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from blip2sweep.metrics.stopping import is_verdict
from blip2sweep.wire.stopping import Stopped

COLUMNS = ("images", "images_of", "stopped")


def stopped_of(cells: Mapping[str, str], number: Callable[[str], float | None]) -> Stopped | None:
    """The field of a `result` line; None for a whole cell. cells: {column: text} of a line. number: of a column."""
    reason, images, of = cells.get("stopped"), number("images"), number("images_of")
    if not reason or images is None or of is None:
        return None
    percent = re.search(r"([\d.]+) %$", reason)
    margin, stop = float(percent[1]) / 100 if percent else 0.0, "verdict" if is_verdict(reason) else "known"
    return {"images": int(images), "of": int(of), "reason": reason, "stop": stop, "margin": margin}
