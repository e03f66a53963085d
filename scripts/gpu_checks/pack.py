"""The folder that travels: this package, its configs and the check, to be run where nothing of it is installed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

MOST = 60 * 10**6  # bytes
SCRIPT = "scripts/gpu_check.py"
# What it reads. Models have made-up words, so no tokenizer and no weights travel.
TAKEN = (
    "blip2sweep/**/*.py",
    "conf/**/*.yaml",
    "conf/**/*.py",
    "scripts/benchmarks/*.py",
    "scripts/gpu_checks/*.py",
    "LICENSE",
)


def pack(root: Path, folder: Path, extra: Sequence[str]) -> int:
    """Write the folder and say how large it is. extra: names of installed packages that travel too. Returns the code that
    the script ends with."""
    if folder.exists() and any(folder.iterdir()):
        print(f"error: --pack {folder}: not empty; right: a new folder", file=sys.stderr)
        return 2
    for name in extra:
        if files_of(name) is None:
            print(f"error: --with {name}: not installed here; right: pip install {name}", file=sys.stderr)
            return 2
    for path in sorted({p for pattern in TAKEN for p in root.glob(pattern)}):
        _copy(path, folder / path.relative_to(root))
    _copy(root / SCRIPT, folder / Path(SCRIPT).name)
    for name in extra:
        for path, inner in files_of(name) or ():
            _copy(path, folder / "packages" / inner)
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    if size > MOST:
        print(
            f"error: {folder} has {size / 1e6:.1f} MB, and {MOST / 1e6:.0f} may travel; right: less --with",
            file=sys.stderr,
        )
        return 2
    print(f"{folder}: {size / 1e6:.1f} MB; there: python gpu_check.py")
    return 0


def files_of(name: str) -> list[tuple[Path, Path]] | None:
    """(path, path in site-packages) of the files of an installed package; None where it is not installed."""
    try:
        found = files(name)
    except PackageNotFoundError:
        return None
    return [(Path(str(f.locate())), Path(str(f))) for f in found or () if _travels(Path(str(f)))]


def _travels(path: Path) -> bool:
    return ".." not in path.parts and "__pycache__" not in path.parts


def _copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)
