"""The miniatures of POPE, ScienceQA-IMG and MMMU as fixtures, their tasks, and edits of their files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.tasks import TaskData, load_task
from scripts.miniatures import write
from tests.checkpoints import conf

NAMES = ("pope", "scienceqa_img", "mmmu")
Row = dict[str, Any]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    write(folder, NAMES)
    return folder


@pytest.fixture
def data(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path, dirs_exist_ok=True)


def task(data: Path, name: str, **fields: Any) -> Row:
    return {**conf(f"task/{name}"), "data_dir": str(data / name), **fields}


def load(data: Path, name: str, **fields: Any) -> TaskData:
    return load_task(task(data, name, **fields))


def changed(path: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content) or content))
