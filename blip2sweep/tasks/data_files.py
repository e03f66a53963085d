"""Where the files of a data set are: under their official names in the data folder, or where the task's `annotations` and
`images` say."""

from __future__ import annotations

import os
from pathlib import Path

from blip2sweep.errors import UserError
from blip2sweep.rows.fields import Wrong, file_name, folder_name


def annotation_file(root: Path, name: str, right: str) -> Path:
    """The file that `task.annotations` names, in the data folder or in its `annotations/`.

    right: what would be right, for the message. Raises UserError for a name that leads out of the folder, or where there
    is no such file.
    """
    own = _inside(root, name, "task.annotations")
    found = [root / own, root / "annotations" / own]
    for path in found:
        if path.is_file():
            return path
    raise UserError(f"task.annotations={name}: no such file in {root} or its annotations/; right: {right}")


def image_folder(root: Path, name: str, inner: str = "") -> str:
    """The folder that `task.images` names, relative to the data folder.

    inner: the folder that an annotation file names for an image; it is taken below `images` where it is there. Raises
    UserError for a name that leads out, or where there is no such folder.
    """
    own = _inside(root, name, "task.images")
    if not (root / own).is_dir():
        raise UserError(f"task.images={name}: no such folder in {root}; right: the folder of the images there, or null")
    deeper = f"{own}/{inner}" if inner else own
    return deeper if (root / deeper).is_dir() else own


def _inside(root: Path, name: str, key: str) -> str:
    """A path relative to the data folder. An absolute one may lie in it."""
    within = os.path.relpath(name, root.absolute()) if Path(name).is_absolute() else name
    try:
        return folder_name(within) if key == "task.images" else file_name(within)
    except Wrong as wrong:
        raise UserError(f"{key}={name}: {wrong}") from None
