"""Types real commands, as a user would, in a folder of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from blip2sweep.cache import disk as cache
from tests.spare import AT_START
from tests.warm import Request, run, umask


class Ran(NamedTuple):
    code: int
    out: str
    err: str


def blip2sweep(*words: str, cwd: Path, env: dict[str, str] | None = None, timeout: float = 300) -> Ran:
    """`python -m blip2sweep …`, with OMP_NUM_THREADS=1 so that two test processes share two cores."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("BLIP2SWEEP_", "HYDRA_", "WANDB_"))}
    inherited |= {k: os.environ[k] for k in (cache.USER,) if k in os.environ}
    given = {**inherited, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "HF_HUB_OFFLINE": "1", **(env or {})}
    if not any(name.startswith(AT_START) for name in env or {}):
        return Ran(*run(Request(words, str(cwd), given, umask()), timeout))
    done = subprocess.run(
        [sys.executable, "-m", "blip2sweep", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=given,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def refused(ran: Ran, *words: str) -> None:
    """One line on stderr with these words, exit code 2, nothing on stdout."""
    assert ran.code == 2, ran
    assert len(ran.err.strip().splitlines()) == 1, ran.err
    assert ran.err.startswith("error: ")
    for word in words:
        assert word in ran.err, ran.err
    assert ran.out == ""
