"""Whether the images of a task are there. No file is opened.

A task may leave out images that cannot be read (`task.on_bad_image=skip`). Images that are not there count as such,
unless none is: then the folder is the wrong one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from blip2sweep.errors import UserError

_some_may_lack: ContextVar[bool] = ContextVar("some images may lack", default=False)


@contextmanager
def some_may_lack(allowed: bool) -> Iterator[None]:
    """Whether the data that is read meanwhile may lack some of its images."""
    before = _some_may_lack.set(allowed)
    try:
        yield
    finally:
        _some_may_lack.reset(before)


def may_lack() -> bool:
    """Whether the data that is read now may lack some of its images."""
    return _some_may_lack.get()


def missing_images(images: Iterable[Path], where: Path) -> list[Path]:
    """The images that are not there; none where some may lack and some are there. Each folder is listed once.

    where: the file that names them. A folder that is a link is followed. Raises UserError for an image that is a link
    out of its folder.
    """
    wanted: dict[Path, dict[str, Path]] = {}
    for image in images:
        wanted.setdefault(image.parent, {})[image.name] = image
    missing = [image for folder, names in wanted.items() for image in _missing(folder, names, where)]
    return [] if may_lack() and len(missing) < sum(map(len, wanted.values())) else missing


def _missing(folder: Path, names: Mapping[str, Path], where: Path) -> list[Path]:
    if not folder.is_dir():
        return list(names.values())
    with os.scandir(folder) as entries:
        there = {e.name: e.is_symlink() for e in entries if e.name in names and _may_be_file(e)}
    home = folder.resolve()
    for name, image in names.items():
        if there.get(name) and not Path(os.path.realpath(image)).is_relative_to(home):  # which no loop of links stops
            raise UserError(f"{where}: image file '{image}' is a link out of {folder}; right: the image itself")
    return [image for name, image in names.items() if name not in there]


def _may_be_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is not a folder. Reading it refuses anything else that is no file, such as a loop of links."""
    try:
        return not entry.is_dir()
    except OSError:
        return True
