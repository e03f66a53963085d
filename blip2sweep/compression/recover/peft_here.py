"""Whether peft is here and can be imported. Importing it imports torch, so a child process tries it, once for each set of
versions. That it can is remembered in the user's cache; that it cannot is not, since it may be mended."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from blip2sweep.cache import disk
from blip2sweep.canonical import digest
from blip2sweep.compression.quantize import installed
from blip2sweep.console.printing import say

STORE = "libraries"  # in the user's cache
NEEDED = "from peft import LoraConfig, inject_adapter_in_model"
WITH = ("peft", "torch", "transformers", "accelerate")  # what peft imports, and breaks with
LIMIT = 600.0  # seconds; importing torch from a cold network file system takes minutes
QUIET = {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@cache
def lacking() -> str | None:
    """Why peft cannot be used, as a clause: `is not installed`. None where it can."""
    if not installed("peft"):
        return "is not installed"
    name = digest([NEEDED, sys.executable, _place(), [_version(x) for x in WITH]])
    store = disk.of_user(STORE)
    if store and store.get(name) is not None:
        return None
    if sys.stderr.isatty():
        say("checking once that peft can be imported …", err=True)
    if (error := import_error()) is not None:
        return f"cannot be imported ({error})"
    if store:
        store.put(name, b"imported")
    return None


def import_error() -> str | None:
    """The last line of what a child process says of importing peft. None where it can; also where it takes too long, and
    then a worker sees it."""
    try:
        child = subprocess.run(
            [sys.executable, "-c", NEEDED], capture_output=True, text=True, errors="replace", timeout=LIMIT, check=False,
            env={**os.environ, **QUIET},
        )  # fmt: skip
    except (subprocess.TimeoutExpired, OSError):
        return None
    said = child.stderr.strip().splitlines() or [f"exit code {child.returncode}"]
    return said[-1].strip() if child.returncode else None


def _place() -> list[object]:
    """Where peft is, and when it was written."""
    spec = find_spec("peft")
    file = Path(spec.origin) if spec and spec.origin else None
    there = file is not None and file.exists()
    return [os.environ.get("PYTHONPATH"), str(file), file.stat().st_mtime_ns if file and there else None]


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
