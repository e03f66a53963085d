"""An exported folder alone, in a fresh process without this package: the texts of torch, and what is said of a bad one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.commands.export import export
from blip2sweep.errors import UserError
from blip2sweep.exporting.ir import alone
from blip2sweep.exporting.manifest import check_export
from tests.in_process import jobs

WORDS = (
    "backend=openvino", "task=shapes_caption", "drop_blocks=vit:1-4+qformer:1-3+llm:1-4", "part=all", "quant.bits=4",
    "model.stored=float16",
)  # fmt: skip


@pytest.fixture(scope="module")
def cell() -> dict[str, Any]:
    (job,) = (j for j in jobs(*WORDS, limit=12) if j["key"] != j["baseline"])
    return job


@pytest.fixture(scope="module")
def folder(cell: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("exported") / "ir"
    told = export(cell, "openvino", found, None, {"cache": "off", "device": "cpu", "threads": 1})  # type: ignore[arg-type]
    assert "NOT what the row says" not in " ".join(told)
    return found


@pytest.mark.thorough
def test_a_folder_runs_alone_with_the_texts_of_torch(cell: dict[str, Any], folder: Path) -> None:
    backend = TorchBackend({"device": "cpu", "cache": "off", "threads": 1})
    expected = backend(cell).predictions.text
    pictures = [str(s.image) for s in backend.task(cell).samples]
    code = f"import sys; sys.modules['blip2sweep'] = None; sys.argv[0] = '{folder}/run.py'; import runpy; runpy.run_path(sys.argv[0], run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code, *pictures, "--tokens", str(cell["generation"]["max_new_tokens"])], capture_output=True, text=True, cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.stdout.splitlines() == expected, done.stderr
    assert "python run.py PICTURE" in (folder / "README.md").read_text()


@pytest.mark.thorough
def test_a_cut_file_and_another_version_are_said_in_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alone, "HERE", folder)
    assert alone.check() is None
    noted, cut = folder / "blip2sweep.json", folder / "language.bin"
    whole = noted.read_text()
    noted.write_text(json.dumps({**json.loads(whole), "versions": {"openvino": "2025.1.0"}}))
    assert str(alone.check()).endswith("right: pip install openvino==2025.1.0")
    noted.write_text(whole)
    cut.write_bytes(cut.read_bytes()[:-100])
    assert alone.check() == f"{cut}: is not whole; right: the export again"
    with pytest.raises(UserError, match=r"language.bin has \d+ bytes of \d+; right: the export again"):
        check_export(folder)
