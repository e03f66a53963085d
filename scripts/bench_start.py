"""How long commands take that have nothing to do, and how long a worker takes before its first cell.

    python scripts/bench_start.py                         # this version
    python scripts/bench_start.py --against FOLDER        # beside the checkout of another, in turn

Processor seconds of whole processes on one thread, the median and the least of several. The sweep is the card's, of few
images, and whole in the ledger before anything is measured.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SWEEP = ["-m", "blip2sweep", "-m", "quant.bits=2,4,8", "part=vit,llm,qformer", "task.limit=32", "sweep_name=card"]
# As the main of a worker does it, whose versions before may lack the first.
LOAD = """import contextlib
with contextlib.suppress(ImportError):
    from blip2sweep.machine.garbage import seldom
    seldom()
from blip2sweep.backends.backend import load_backend
load_backend({})"""
BACKEND = ["-c", LOAD]
MEASURED = {
    "the back end of a worker, loaded": BACKEND,
    "a sweep with nothing to do": SWEEP,
    "blip2sweep table": ["-m", "blip2sweep", "table"],
    "blip2sweep status": ["-m", "blip2sweep", "status"],
    "blip2sweep --help": ["-m", "blip2sweep", "--help"],
}


def seconds(folder: str, words: list[str], cwd: str) -> float:
    """Processor seconds of a command that must succeed, those of its children included. folder: with the packages of a
    version, or empty for the version that is installed."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", **({"PYTHONPATH": folder} if folder else {})}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # or every run compiles the package
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([sys.executable, *words], cwd=cwd, stdout=said, stderr=said, env=env)
        _, status, used = os.wait4(process.pid, 0)
        if status:
            said.seek(0)
            raise SystemExit(said.read().decode())
    return used.ru_utime + used.ru_stime


def packages(checkout: Path, folder: Path) -> str:
    """The folder, with a copy of a checkout's packages. Its configs are inside, where an installed version has them: those
    of a checkout itself would be the installed version's."""
    kept = shutil.ignore_patterns("__pycache__")
    for source, name in (("blip2sweep", "blip2sweep"), ("hydra_plugins", "hydra_plugins"), ("conf", "blip2sweep/conf")):
        shutil.copytree(checkout / source, folder / name, ignore=kept)
    return str(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="FOLDER", help="the checkout of another version")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as own, tempfile.TemporaryDirectory() as other:
        both = [(ROOT, own), (Path(asked.against), other)] if asked.against else []
        folders = [packages(checkout, Path(place) / "packages") for checkout, place in both] or [""]
        places = dict(zip(folders, (own, other), strict=False))  # each draws the pictures of its own sweep
        for folder, cwd in places.items():
            seconds(folder, SWEEP, cwd)
        for name, words in MEASURED.items():
            for folder, cwd in places.items():
                seconds(folder, words, cwd)  # which compiles what it imports
            found: dict[str, list[float]] = {folder: [] for folder in folders}
            for turn in range(asked.rounds):
                for folder in folders[:: 1 if turn % 2 else -1]:
                    found[folder].append(seconds(folder, words, places[folder]))
            each = (f"{statistics.median(x):6.2f} s, least {min(x):6.2f} s" for x in found.values())
            print(f"{name:35} {'   other: '.join(each)}", flush=True)


if __name__ == "__main__":
    main()
