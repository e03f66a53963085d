"""Copies what an output folder holds into another one: results as they are, file by file, each whole or not at all.

What results need is written first and the journals that commit them last, so that a copy that was killed at any point
left nothing that counts and is not whole; the same copy again goes on. Nothing is ever changed in the folder that is
read, whose processes may still write: of a journal the whole lines are taken that it had at first.
"""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from blip2sweep.console.patience import shown
from blip2sweep.console.remarks import many, some
from blip2sweep.errors import UserError
from blip2sweep.files import write_atomic
from blip2sweep.results.journal import OPENED, note_closed, note_opened
from blip2sweep.results.predictions import predictions_or_none
from blip2sweep.results.score_folders import VARIANTS

PREDICTIONS = "predictions"
FOLDERS = (PREDICTIONS, "scores", "propagation", "influence")  # what results need, besides variants of scores
Copies = dict[Path, Path]  # {file that is read: file that is written}
Journals = dict[str, tuple[int, str]]  # {name: (bytes to take, name here)}
IMPORTED = "imported-"  # begins the names of journals that `import` writes, and writes again


def check_folders(other: Path, output_dir: Path) -> None:
    """Raise UserError unless `other` is an output folder, and another one than `output_dir`."""
    if not any((other / "journals").glob("*.jsonl")):
        what = "no output folder: it has no journals" if other.is_dir() else "no such folder"
        raise UserError(
            f"merge {other}: {what}; right: an output_dir of blip2sweep (results of others: blip2sweep import)"
        )
    one, two = other.resolve(), output_dir.resolve()
    if one == two or (two.exists() and one.samefile(two)):
        raise UserError(f"merge {other}: that is the output folder itself; right: another one")
    if one.is_relative_to(two) or two.is_relative_to(one):
        raise UserError(f"merge {other}: one of the two folders is in the other; right: two folders side by side")


# ---- journals


def whole_lines(other: Path) -> dict[str, int]:
    """{name: bytes of its whole lines} of every journal. Raises UserError that names all that cannot be read."""
    found, refused = dict[str, int](), list[str]()
    for path in sorted((other / "journals").glob("*.jsonl")):
        try:
            found[path.name] = path.read_bytes().rfind(b"\n") + 1
        except OSError as error:
            refused.append(f"{path} ({error.strerror})")
    if refused:
        raise UserError(f"merge {other}: cannot be read: {some(refused)}; right: as a user who may read all of it")
    return {name: size for name, size in found.items() if size}


def new_journals(other: Path, output_dir: Path, sizes: Mapping[str, int]) -> Journals:
    """Those of `whole_lines` that are not here, or go on where a copy here ends. Raises UserError for journals of one name
    that say different things, unless they are of imports, whose names are not unique."""
    found, differing = Journals(), list[str]()
    for name, size in sizes.items():
        there = (other / "journals" / name).read_bytes()[:size]
        target = name
        if name.startswith(IMPORTED) and not _goes_on(output_dir / "journals" / name, there):
            target = f"{name.removesuffix('.jsonl')}-{zlib.crc32(there):08x}.jsonl"
        here = _read(output_dir / "journals" / target)
        if not here[: here.rfind(b"\n") + 1].startswith(there):
            found[name] = size, target
            differing += [] if there.startswith(here) else [name]
    if differing:
        raise UserError(
            f"merge {other}: {many(len(differing), 'journal')} of one name that do not go on from each other "
            f"({some(differing)}); right: an unchanged copy"
        )
    return found


def _goes_on(path: Path, there: bytes) -> bool:
    here = _read(path)
    return here.startswith(there) or there.startswith(here)


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def write_journals(other: Path, output_dir: Path, journals: Journals) -> None:
    """Copy journals, each whole or not at all. Raises UserError when the disk refuses."""
    for name, (size, written) in journals.items():
        target, data = output_dir / "journals" / written, (other / "journals" / name).read_bytes()[:size]
        write_atomic(target, data)
        note_opened(target)
        noted, lines = other / OPENED / name, data.count(b"\n")
        if noted.exists() and noted.stat().st_size == lines:  # it was closed, and is here as it was then
            note_closed(target, lines)


# ---- what journals commit


def needed(other: Path, output_dir: Path) -> Copies:
    """The files of results that are not here, or damaged here, and are there. Links are left out: they may lead anywhere."""
    found: Copies = {}
    variants = sorted((other / VARIANTS).iterdir()) if (other / VARIANTS).is_dir() else []
    for folder in (*FOLDERS, *(f"{VARIANTS}/{path.name}" for path in variants if path.is_dir())):
        for path in _files(other / folder):
            target = output_dir / folder / path.name
            if not target.exists() or (folder == PREDICTIONS and _damaged(path, target)):
                found[path] = target
    return found


def _files(folder: Path) -> Iterator[Path]:
    """The files of a folder, without temporary and damaged ones."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_file() and not path.is_symlink() and not path.name.startswith(".") and path.suffix != ".damaged":
            yield path


def _damaged(path: Path, target: Path) -> bool:
    """Whether predictions here, of the same name, are not as that name says. They are then renamed."""
    one, two = path.stat(), target.stat()
    if (one.st_size, one.st_mtime_ns) == (two.st_size, two.st_mtime_ns):
        return False
    return predictions_or_none(target.parent.parent, target.stem) is None


def copy_files(copies: Copies, words: str) -> None:
    """Copy files, each whole or not at all, with their times, by which readers know that they are as they were written.

    words: what is said while it takes long. Raises UserError, before anything is written, where the disk has no room.
    """
    size = sum(path.stat().st_size for path in copies)
    room = shutil.disk_usage(_existing(next(iter(copies.values())))).free if copies else 0
    if size > room:
        raise UserError(f"{words}: {size / 1e9:.2f} GB, and the disk has {room / 1e9:.2f} GB; right: more room")
    for path, target in shown(copies.items(), len(copies), words):
        _copy(path, target)


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _copy(path: Path, target: Path) -> None:
    try:
        stat, data = path.stat(), path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); right: the same command again") from error
    write_atomic(target, data)
    os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns))
