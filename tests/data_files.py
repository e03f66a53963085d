"""The miniatures of data sets as a test reads them, edits their files, and sees what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.errors import UserError, UserErrors
from blip2sweep.tasks import TaskData, load_task
from tests.checkpoints import conf


def load(data: Path, name: str, **fields: Any) -> TaskData:
    return load_task({**conf(f"task/{name}"), "data_dir": str(data / name), **fields})


def edit(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def refused(act: Callable[[], object], *words: str) -> None:
    """A line for each of the words, in their order, and no more lines."""
    with pytest.raises(UserError) as caught:
        act()
    lines = caught.value.lines if isinstance(caught.value, UserErrors) else (str(caught.value),)
    assert len(lines) == len(words), lines
    for line, word in zip(lines, words, strict=True):
        assert word in line
        assert "\n" not in line
