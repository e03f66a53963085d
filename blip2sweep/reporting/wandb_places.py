"""Where W&B keeps what it writes: below the output folder, and not in the user's home.

W&B copies every file of an artifact (a sweep's table, its page, the table of samples) before it is sent. By default the
copies are in the home folder, and `wandb sync` of an offline run finds them nowhere else. They are kept beside the runs,
so that an offline run is whole wherever its output folder is seen.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

FOLDER = "wandb"  # in the output_dir; W&B's own name for it
# Variables of W&B: copies of what is to be sent; what was sent, and logs. Its settings and login stay where they are.
PLACES = {"WANDB_DATA_DIR": "data", "WANDB_CACHE_DIR": "cache"}
MODE, OFFLINE = "WANDB_MODE", ("offline", "dryrun")


@contextlib.contextmanager
def kept_below(output_dir: Path) -> Iterator[None]:
    """Have W&B write below the output folder inside. A place that the user has named stays."""
    folder = output_dir.resolve() / FOLDER
    added = {name: str(folder / place) for name, place in PLACES.items() if not os.environ.get(name)}
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def mode_of(settings: Mapping[str, object]) -> str:
    """online or offline: as WANDB_MODE says, where it is set, else as the settings of tracking say."""
    return os.environ.get(MODE) or str(settings.get("mode"))


def offline_runs(output_dir: Path, settings: Mapping[str, object]) -> list[str]:
    """Where the runs lie that were not sent, and what sends them. Empty where they were sent."""
    if settings.get("mode") not in OFFLINE:
        return []
    folder = output_dir.resolve() / FOLDER
    return [
        f"W&B's offline runs are in {folder}; where there is a network: wandb sync {shlex.quote(str(folder))}/offline-run-*"
    ]
