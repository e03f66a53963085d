"""The code from outside that the sweeps of a folder name, as far as making tables may run it."""

from __future__ import annotations

import os
from pathlib import Path

from blip2sweep.results.sweeps import list_sweeps
from blip2sweep.wire.pack import OutsideCode


def outside_code(output_dir: Path) -> dict[str, OutsideCode]:
    """The code from outside that sweeps were run with, the newest of each name.

    A file counts only if the sweep belongs to the current user, so that making a table never runs the code of another
    user.
    """
    found: dict[str, OutsideCode] = {}
    for sweep in list_sweeps(output_dir, forgotten=True):
        if code := sweep.settings.get("outside"):
            file = sweep.folder(output_dir) / "sweep.json"
            own = sweep.of_user is None and file.stat().st_uid == os.geteuid()
            found |= {full: c for full, c in code.items() if own or "file" not in c}
    return found
