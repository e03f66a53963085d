"""Runs checks one after the other: each has its share of the time, fails alone, and leaves its entry at once."""

from __future__ import annotations

import gc
import json
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, NoReturn

Found = dict[str, Any]
RUNNING = "running"  # in the report, while a check runs: its name, and when its time is over
BROKEN = 5  # code of a process whose device computes nothing more


class OutOfTime(BaseException):
    """A check has used up its share."""


class NotHere(Exception):
    """What a check needs is not on this machine. Its text says what."""


class Deadline:
    """The time that is left of a number of seconds."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return self.end - time.monotonic()

    @property
    def near(self) -> bool:
        """Whether no further piece of work should begin."""
        return self.left <= 0


class Check(NamedTuple):
    """run(found, deadline) fills `found`, so that what was found stays where it ends early. share: of the time, relative
    to that of the checks behind it. least: seconds below which it is not begun."""

    name: str
    run: Callable[[Found, Deadline], None]
    share: float
    least: float


class Report:
    """The JSON of all checks, written to a file whenever it grows. A file that cannot be written stops no check."""

    def __init__(self, path: Path, about: Found) -> None:
        self.path, self.content = path, {**about, "checks": {}}

    def begin(self, name: str, seconds: float) -> None:
        self.content[RUNNING] = {"check": name, "until": time.time() + seconds}
        self.write()

    def add(self, name: str, entry: Found) -> None:
        self.content.pop(RUNNING, None)
        self.content["checks"][name] = entry
        self.write()

    def conclude(self, **fields: object) -> None:
        self.content |= fields
        self.write()

    def write(self) -> None:
        part = self.path.with_name(self.path.name + ".part")
        try:
            part.write_text(self.text())
            part.replace(self.path)
        except OSError as error:
            print(f"{self.path}: not written ({error.strerror})", file=sys.stderr)

    def read(self) -> None:
        """Take what another process has written."""
        with suppress(OSError, ValueError):
            self.content = json.loads(self.path.read_text())

    def until(self) -> float:
        """When the time of the check is over that another process runs, as time.time(); never where none does."""
        try:
            return float(json.loads(self.path.read_text())[RUNNING]["until"])
        except (OSError, ValueError, LookupError):
            return float("inf")

    def text(self) -> str:
        return json.dumps(_finite(self.content), indent=1, default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    """The same with None for numbers that are none, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def run_all(
    checks: Sequence[Check], report: Report, seconds: float, say: Callable[[str], None], works: Callable[[], bool]
) -> bool:
    """Run the checks in order. What one of them leaves of its share goes to those behind it. works: whether the device
    still computes, which is asked after a check that failed; where it does not, the others are left and False returned.
    """
    whole = Deadline(seconds)
    for i, check in enumerate(checks):
        own = whole.left * check.share / sum(c.share for c in checks[i:])
        if own < check.least:
            entry: Found = {"skipped": f"no time: {max(0.0, own):.0f} s left for it, {check.least:.0f} needed"}
        else:
            say(f"{check.name}: at most {own:.0f} s")
            report.begin(check.name, own)
            entry = run_one(check, own)
        report.add(check.name, entry)
        say(f"{check.name}: {entry.get('error') or entry.get('skipped') or 'done'} ({entry.get('seconds', 0):.1f} s)")
        if "error" in entry and not works():
            return False
    return True


def run_one(check: Check, seconds: float) -> Found:
    """The entry of one check. It is told to end at four fifths of its time, and interrupted at its end."""
    found, began = Found(), time.monotonic()
    try:
        with interrupted_after(seconds):
            check.run(found, Deadline(0.8 * seconds))
    except OutOfTime:
        found["error"] = f"interrupted after its {seconds:.0f} s"
    except NotHere as why:
        found["skipped"] = str(why)
    except Exception as error:
        found["error"] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
        found["traceback"] = "".join(traceback.format_exception(error))[-3000:]
    gc.collect()
    return {"seconds": round(time.monotonic() - began, 2), **found}


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """Raises OutOfTime inside, at the first instruction of Python after that time."""

    def ring(number: int, frame: FrameType | None) -> NoReturn:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 5.0)  # again, where a library takes it for an error of its own
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def ends_in_order() -> None:
    """SIGTERM raises SystemExit, so that what was found is printed. The file has it in any case."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)


def cores() -> int:
    return len(os.sched_getaffinity(0))
