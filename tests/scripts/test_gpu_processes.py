"""The check for GPUs runs its checks in processes: one that takes its own down costs its own entry."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from scripts import gpu_check
from scripts.gpu_checks import supervised
from scripts.gpu_checks.running import BROKEN, RUNNING, Check, Found, Report, run_all
from scripts.gpu_checks.supervised import supervise
from scripts.gpu_checks.targets import judged, mistakes
from tests.checkpoints import ROOT

NAMES = ("machine", "draw", "sweep", "decoding", "restore")


def nothing(text: str) -> None:
    pass


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return Report(tmp_path / "found.json", {"dry": True})


def in_processes(
    report: Report, behave: Callable[[str], bool], seconds: float = 30, names: Sequence[str] = NAMES
) -> int:
    """Checks that say in which process they ran. behave: of a name, whether the device works behind it; or it ends the
    process, or hangs."""

    def run(names: Sequence[str], seconds: float, number: int) -> int:
        gc.freeze()  # what the tests hold need not be searched for garbage behind every check
        report.read()

        def one(found: Found, name: str) -> None:
            found["number"] = number
            if not behave(name):
                raise RuntimeError("illegal memory access")

        checks = [
            Check(name, lambda found, _, name=name: one(found, name), 0.1 if name == "decoding" else 1, 0)  # type: ignore[misc]
            for name in names
        ]
        return 0 if run_all(checks, report, seconds, nothing, lambda: False) else BROKEN

    return supervise(run, names, report, seconds, nothing)


def test_checks_share_a_process(report: Report) -> None:
    assert in_processes(report, lambda name: True) == 0
    assert [entry["number"] for entry in report.content["checks"].values()] == [0, 0, 0, 0, 0]
    assert RUNNING not in report.content


def test_a_check_that_takes_its_process_down_costs_its_own_entry(report: Report) -> None:
    def behave(name: str) -> bool:
        if name == "decoding":
            os.kill(os.getpid(), signal.SIGKILL)
        return True

    assert in_processes(report, behave) == 0
    found = json.loads(report.path.read_text())["checks"]
    assert found["decoding"]["error"] == "its process was ended by SIGKILL"
    # What the model was drawn for anew, since the others need it.
    assert {n: e.get("number") for n, e in found.items()} == {
        "machine": 0, "draw": 1, "sweep": 0, "decoding": None, "restore": 1
    }  # fmt: skip
    assert [m.partition(":")[0] for m in mistakes(found)] == ["decoding"]


def test_a_device_that_computes_no_more_costs_its_process(report: Report) -> None:
    assert in_processes(report, lambda name: name != "sweep") == 0
    found = report.content["checks"]
    assert found["sweep"]["error"] == "RuntimeError: illegal memory access"
    assert found["restore"]["number"] == found["draw"]["number"] == 1


@pytest.mark.thorough
def test_native_code_that_hangs_is_ended(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sees no signal of Python's, as in a kernel that does not return."""
    monkeypatch.setattr(supervised, "GRACE", 0.2)

    def behave(name: str) -> bool:
        if name == "decoding":
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
            time.sleep(60)
        return True

    began = time.monotonic()
    assert in_processes(report, behave, 10) == 0
    assert report.content["checks"]["decoding"]["error"] == "its process was ended by SIGKILL"
    assert "number" in report.content["checks"]["restore"]
    assert time.monotonic() - began < 30


def test_a_process_that_runs_no_check_is_not_started_again(report: Report) -> None:
    calls = report.path.with_name("calls")

    def run(names: Sequence[str], seconds: float, number: int) -> int:
        with calls.open("a") as file:
            file.write("x")
        return 7

    assert supervise(run, NAMES, report, 30, nothing) == 7
    assert calls.read_text() == "x"
    assert {e["skipped"] for e in report.content["checks"].values()} == {"the process ended with code 7 before it"}


def test_a_model_that_cannot_be_drawn_is_not_drawn_again(report: Report) -> None:
    assert in_processes(report, lambda name: name != "draw") == 0
    found = report.content["checks"]
    assert (found["draw"]["number"], found["sweep"]["number"]) == (0, 1)


def test_a_limit_from_outside_leaves_what_was_found(tmp_path: Path) -> None:
    """SIGTERM, as of a scheduler: the JSON is printed, with the entries of the checks before."""
    out = tmp_path / "stopped.json"
    slow = "import scripts.gpu_checks.supervised as s, time; s.GRACE = 1\n"
    code = slow + STOPPED.format(root=str(ROOT), out=str(out))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT)
    deadline = time.monotonic() + 20
    while "second" not in (out.read_text() if out.exists() else "") and time.monotonic() < deadline:
        time.sleep(0.05)
    child.terminate()
    said = json.loads(child.communicate(timeout=20)[0])
    assert child.returncode == 128 + signal.SIGTERM
    assert said["checks"]["first"]["torch"] is False  # a process that is forked behind CUDA cannot use it
    assert said["mistakes"] == []


STOPPED = """
import sys
from argparse import Namespace
from pathlib import Path
from scripts import gpu_check
from scripts.gpu_checks.running import Check, Report, run_all
def run(args, names, folder, seconds):
    report = Report(args.out, {{}})
    checks = [Check("first", lambda found, _: found.update(torch="torch" in sys.modules), 1, 0), Check("second", lambda *_: time.sleep(60), 1, 0)]
    return int(not run_all(checks, report, seconds, lambda text: None, lambda: True))
gpu_check.run = run
raise SystemExit(gpu_check.all_of_them(Namespace(dry=True, minutes=5, out=Path({out!r})), ["first", "second"], Path("/tmp")))
"""


def test_no_process_outlives_the_command(tmp_path: Path) -> None:
    """Whatever ends it: it would keep the card from the next one."""
    code = """
import os, time
from pathlib import Path
from scripts.gpu_checks.running import Report
from scripts.gpu_checks.supervised import supervise
def run(*given):
    Path("part").write_text(str(os.getpid()))
    Path("part").rename("pid")
    time.sleep(60)
supervise(run, ["machine"], Report(Path("x.json"), {}), 60, print)
"""
    child = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert within(20, (tmp_path / "pid").exists)
    pid = int((tmp_path / "pid").read_text())
    child.kill()
    child.wait()
    assert within(20, lambda: not runs(pid))


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return held


def runs(pid: int) -> bool:
    """Whether a process is there, and is no zombie that nobody has asked for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_gpu_that_is_lost_leaves_what_was_found(report: Report) -> None:
    """The process behind the one that lost it finds none, and draws no model: nothing is missing from the report."""
    first = {"machine": {}, "draw": {"images": 512}, "sweep": {"error": "RuntimeError: the GPU has fallen off the bus"}}

    def run(names: Sequence[str], seconds: float, number: int) -> int:
        if number:
            return 2
        for name, entry in first.items():
            report.add(name, entry)
        return BROKEN

    assert supervise(run, NAMES, report, 30, nothing) == 2
    found = report.content["checks"]
    assert found["draw"] == {"images": 512}
    assert found["restore"] == {"skipped": "the process ended with code 2 before it"}
    assert json.loads(report.path.read_text())["checks"] == found


def test_a_process_that_fails_before_its_checks_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "run", lambda *given: 7)
    given = Namespace(dry=True, minutes=1, out=tmp_path / "x.json")
    assert gpu_check.all_of_them(given, ["machine"], tmp_path) == 1


def test_without_a_gpu_no_file_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "run", lambda *given: 2)
    given = Namespace(dry=False, minutes=1, out=tmp_path / "x.json")
    assert gpu_check.all_of_them(given, ["machine"], tmp_path) == 2
    assert not given.out.exists()


def test_what_is_no_number_is_null(report: Report) -> None:
    report.add("sweep", {"gaps": [1.5, float("nan")], "floor": {"share_vision": float("-inf")}})
    assert json.loads(report.text(), parse_constant=pytest.fail)["checks"]["sweep"] == {
        "gaps": [1.5, None], "floor": {"share_vision": None}
    }  # fmt: skip
    assert not judged({"machine": {"device": "H200"}, **json.loads(report.text())["checks"]})[1]["met"]
