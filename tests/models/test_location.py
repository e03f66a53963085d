"""Finding checkpoints, without torch."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from blip2sweep.models.checkpoints import inspect
from blip2sweep.models.location import locate
from tests.checkpoints import ROOT, TINY, conf, fails

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_neither_checkpoints_nor_tasks_import_torch() -> None:
    code = "import sys, blip2sweep.models.checkpoints, blip2sweep.models.location, blip2sweep.tasks; sys.exit('torch' in sys.modules or 'hydra' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# ---- locate


def test_the_shipped_model_is_found_in_the_package() -> None:
    assert locate(conf("model/tiny")) == (TINY, None)


def test_a_folder_is_found(tmp_path: Path) -> None:
    assert locate({"path": str(tmp_path), "hub_id": "a/b"}) == (tmp_path, None)
    with fails("neither path nor hub_id"):
        locate({"name": "x"})


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("nowhere", "no such folder"),
        (__file__, "a file and no folder"),
        ("pkg://nowhere/x", "No module named 'nowhere'"),
        ("pkg://", "Empty module name"),
        ("pkg://blip2sweep.errors/x", "not a package"),
        ("~nobody-of-that-name/x", "home directory"),
        ("x" * 5000, "File name too long"),
    ],
)
def test_a_path_that_is_no_folder_is_told(path: str, told: str) -> None:
    with fails("model.path=", told, "right: a folder with config.json"):
        locate({"path": path})


def test_a_cached_snapshot_is_found_with_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--some--model"
    shutil.copytree(TINY, repo / "snapshots" / COMMIT)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    found = locate({"hub_id": "some/model"})
    assert found == (repo / "snapshots" / COMMIT, COMMIT)
    assert inspect(found.folder).fingerprint == inspect(TINY).fingerprint


def test_a_model_that_is_not_cached_names_the_cache_and_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with fails(str(tmp_path), "hf download some/model`"):
        locate({"hub_id": "some/model"})
