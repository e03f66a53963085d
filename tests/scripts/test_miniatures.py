"""The miniatures of data sets: the same bytes at every call, one for each task that is named."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.miniatures import SETS, write

ROOT = Path(__file__).resolve().parents[2]


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("miniatures")
    write(folder)
    return folder


def test_each_is_of_a_task_and_small(written: Path) -> None:
    assert sorted(p.name for p in written.iterdir()) == list(SETS)
    for name in SETS:
        assert (ROOT / "conf/task" / f"{name}.yaml").is_file(), name
        assert 0 < sum(p.stat().st_size for p in (written / name).rglob("*")) < 500_000, name


def test_the_same_bytes_at_every_call(written: Path, tmp_path: Path) -> None:
    (tmp_path / SETS[0]).mkdir()
    (tmp_path / SETS[0] / "of a former run.json").touch()
    write(tmp_path)
    assert digests(tmp_path) == digests(written)


def test_the_script_writes_what_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "scripts/miniatures.py", str(tmp_path)]
    subprocess.run([*command, SETS[0]], cwd=ROOT, check=True)
    assert [p.name for p in tmp_path.iterdir()] == [SETS[0]]
    ran = subprocess.run([*command, "nocap"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert f"nocap: no such data set; there are {', '.join(SETS)}" in ran.stderr
