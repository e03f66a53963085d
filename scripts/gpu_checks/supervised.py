"""Runs checks in a process of their own. One that takes it down, hangs in native code or leaves a device that computes
nothing more costs its own entry: another process goes on behind it. No torch here: the process is forked.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress

from scripts.gpu_checks.running import BROKEN, RUNNING, Found, Report

GRACE = 20.0  # seconds that a check has beyond its share; native code sees no signal of Python's
MODEL, ALONE = "draw", ("machine", "llava")  # what draws the model that all others but these need
PARENT_GONE = 1  # PR_SET_PDEATHSIG: which signal a process gets whose parent is killed; it would keep the card
Run = Callable[[Sequence[str], float, int], int]  # names, seconds, the number of the process -> code


def supervise(run: Run, names: Sequence[str], report: Report, seconds: float, say: Callable[[str], None]) -> int:
    """Run the checks of these names in as many processes as it takes. Returns the code of the last one.

    run: runs checks in a process, which writes the report's file. Afterwards the report has what they found.
    """
    left, end, number, code = list(names), time.monotonic() + seconds, 0, 0
    drawn: Found | None = None  # the entry of the model, which stays where no other process draws it
    while left:
        code = _ended(pid := _forked(run, left, end - time.monotonic(), number), report, end)
        report.read()
        checks, number = report.content["checks"], number + 1
        if (hand := report.content.pop(RUNNING, None)) is not None:
            report.add(hand["check"], {"error": f"its process {_how(code)}", "process": pid})
        after = [name for name in left if name not in checks]
        if code == 0 or not after or len(after) == len(left):
            break
        if time.monotonic() >= end:
            break
        again = MODEL not in after and "error" not in checks.get(MODEL, {}) and any(n not in ALONE for n in after)
        left = [MODEL, *after] if again else after
        if again:
            drawn = checks.pop(MODEL)
            report.write()
        say(f"the process {_how(code)}; another one goes on with {', '.join(left)}")
    checks = report.content["checks"]
    if drawn is not None and MODEL not in checks:
        report.add(MODEL, drawn)
    for name in (n for n in names if n not in checks and (checks or code != 2)):  # 2: no GPU, unless one was lost
        why = "no time left" if time.monotonic() >= end else f"the process {_how(code)} before it"
        report.add(name, {"skipped": why})
    return code


def _forked(run: Run, names: Sequence[str], seconds: float, number: int) -> int:
    """The id of a new process that runs the checks. It never returns here."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setpgid(0, 0)  # so that what it starts, such as compilers, ends with it
        with suppress(AttributeError):  # Linux alone has it
            ctypes.CDLL(None).prctl(PARENT_GONE, signal.SIGKILL)
        code = run(names, seconds, number)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):  # whoever read them is gone; nothing may go on as if it were the parent
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _ended(pid: int, report: Report, end: float) -> int:
    """The code of a process, negative where a signal ended it. It is killed where its check is late, or all of it."""
    try:
        while True:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > end + GRACE or time.time() > report.until() + GRACE:
                _kill(pid)
            time.sleep(0.1)
    except BaseException:
        _kill(pid)
        raise


def _kill(pid: int) -> None:
    for kill in (os.killpg, os.kill):  # the group, unless it has none yet
        with suppress(OSError):
            kill(pid, signal.SIGKILL)


def _how(code: int) -> str:
    if code == BROKEN:
        return "has a device that computes nothing more"
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
