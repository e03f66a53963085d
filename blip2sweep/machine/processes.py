"""Identifies processes by id and start time. The system uses an id again, and clocks are set; the start time stays."""

from __future__ import annotations

import functools
import getpass
import os
import signal
import tempfile
from pathlib import Path


def born(pid: int | None = None) -> str | None:
    """A name of a living process that stays the same while the machine runs. None for an ended process, or a zombie.

    The name is the id of the boot and the process's start in kernel ticks since the boot. Setting the clock changes
    neither.
    """
    pid = os.getpid() if pid is None else pid
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self/stat").exists() else _born_elsewhere(pid)
    except OSError:
        return _born_elsewhere(pid)
    fields = stat.rpartition(")")[2].split()  # the program's name before it may hold any character
    return None if fields[0] in "ZX" else f"{_boot()}-{fields[19]}"


def _born_elsewhere(pid: int) -> str | None:
    """The name on a system without /proc: the start as a time of day."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.Error:
        return None


@functools.cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    except OSError:
        return "boot"


def exists(pid: int) -> bool:
    """Whether any process has this id now."""
    import psutil

    return psutil.pid_exists(pid)


def lives(pid: int, born_as: str) -> bool:
    """Whether a process still runs. born_as: the name that `born` gave it."""
    return pid > 0 and born(pid) == born_as


def user() -> str:
    """The user's name, or the user's number where the system knows no name, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return str(os.getuid())


def settle_user() -> None:
    """Set USER where it is not set, and HOME to a temporary folder where the user has no home.

    Without them, libraries that ask the system for the user's name or home end in a traceback.
    """
    os.environ.setdefault("USER", user())
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(Path(tempfile.gettempdir()) / f"home-{os.getuid()}")


def ends_with_its_input() -> None:
    """Ignore the signals that Slurm sends to every process of a job, in one that a worker feeds and that ends with its
    input."""
    for signum in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
