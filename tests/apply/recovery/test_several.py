"""Several processes of one training: what is left when one of them ends before the others."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from blip2sweep.apply.recovery import several
from blip2sweep.apply.recovery.several import FAILED, CourseJob, train_together
from blip2sweep.errors import UserError
from blip2sweep.machine.stopping import Stopped

JOB = cast("CourseJob", {"device": "cpu", "checkpoint": None})
DIES = "import sys; sys.exit(1)"
TELLS = "import sys, pathlib; pathlib.Path(sys.argv[1], {name!r}).write_text('{{{told}}}'); sys.exit(1)"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Replaces the processes: the second runs the code that is set, the first waits."""
    made: list[Any] = [DIES]

    def start(folder: Path, rank: int, count: int) -> subprocess.Popen[bytes]:
        code = made[0] if rank else "import time; time.sleep(60)"
        made.append(subprocess.Popen([sys.executable, "-c", code, str(folder)]))
        return made[-1]

    monkeypatch.setattr(several, "_started", start)
    return made


def told(kind: str, error: str) -> str:
    return TELLS.format(name=FAILED, told=f'"kind": "{kind}", "error": "{error}"')


@pytest.mark.parametrize(
    ("code", "error", "match"),
    [
        (DIES, RuntimeError, r"recover.processes=2: a process of the training died \(exit codes \[-9, 1\]\)"),
        (told("memory", "recover: out"), MemoryError, "^recover: out$"),
        (told("user", "recover: wrong"), UserError, "^recover: wrong$"),
        (told("other", "broken"), RuntimeError, "^broken$"),
    ],
)
def test_a_process_that_fails_ends_the_others(
    code: str, error: type[Exception], match: str, started: list[Any]
) -> None:  # fmt: skip
    started[0] = code
    began = time.monotonic()
    with pytest.raises(error, match=match):
        train_together(JOB, {}, 2, lambda: False)
    assert time.monotonic() - began < 50
    assert not any(psutil.pid_exists(p.pid) for p in started[1:])


def test_processes_that_were_asked_to_stop_made_nothing(started: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """They end by themselves at their next step, and what they reached is in their checkpoint."""
    waits = "import pathlib, sys, time\nwhile not pathlib.Path(sys.argv[1], 'stop').exists(): time.sleep(0.01)"
    monkeypatch.setattr(
        several, "_started", lambda folder, *_: subprocess.Popen([sys.executable, "-c", waits, str(folder)])
    )  # fmt: skip
    with pytest.raises(Stopped) as stopped:
        train_together(JOB, {}, 2, lambda: True)
    assert not stopped.value.goes_on
    with pytest.raises(Stopped) as stopped:
        train_together({**JOB, "checkpoint": "x"}, {}, 2, lambda: True)
    assert stopped.value.goes_on


def test_each_gpu_process_wants_a_gpu_of_its_own() -> None:
    with pytest.raises(UserError, match=r"recover.processes=64: this worker has \d+ GPUs; right: at most as many"):
        several.check_devices("cuda", 64)
