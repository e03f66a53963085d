"""Which process it was: an id is given again, and clocks are set; a process's own start time stays."""

from __future__ import annotations

import functools
import getpass
import os
import tempfile
from pathlib import Path


def born(pid: int | None = None) -> str | None:
    """Names a living process for as long as this machine runs: its boot and, in the kernel's ticks since then, its start. No
    step of the clock changes either. None when it is gone, or a zombie."""
    pid = os.getpid() if pid is None else pid
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self/stat").exists() else _born_elsewhere(pid)
    except OSError:
        return _born_elsewhere(pid)
    fields = stat.rpartition(")")[2].split()  # the name before may hold anything
    return None if fields[0] in "ZX" else f"{_boot()}-{fields[19]}"


def _born_elsewhere(pid: int) -> str | None:
    """Where there is no /proc, the system keeps the start as a time of day."""
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
    """Whether the process that `born` named is still there."""
    return pid > 0 and born(pid) == born_as


def user() -> str:
    """The user's name, or the number where the system knows no name for it, as in many a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return str(os.getuid())


def settle_user() -> None:
    """Libraries ask for the user's name and home and end in a traceback where the system knows neither: give them a number,
    and a folder for scratch."""
    os.environ.setdefault("USER", user())
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(Path(tempfile.gettempdir()) / f"home-{os.getuid()}")
