"""Write the miniatures of the data sets in conf/task/: official file names and layouts, a few generated pictures.

    python scripts/miniatures.py DIR                          # all of them: DIR/coco_caption, DIR/nocaps …
    python scripts/miniatures.py DIR nocaps vqav2             # these

docs/tasks.md has a command on each. The same versions of Pillow and numpy give the same bytes.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout, installed or not

from scripts import miniature_sets

SETS = tuple(sorted(m.name for m in pkgutil.iter_modules(miniature_sets.__path__) if not m.name.startswith("_")))


def write(folder: Path, names: tuple[str, ...] = SETS) -> None:
    """Write `folder/NAME` for each name of a data set. What a former run left there is replaced."""
    for name in names:
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
        importlib.import_module(f"scripts.miniature_sets.{name}").write(folder / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SETS)}; none: all of them")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in SETS]
    if unknown:
        parser.error(f"{unknown[0]}: no such data set; there are {', '.join(SETS)}")
    write(given.folder, tuple(given.names) or SETS)


if __name__ == "__main__":
    main()
