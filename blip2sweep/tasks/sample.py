"""What a task is to the rest: samples with a picture, perhaps a question, and references."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from blip2sweep.canonical import canonical_json
from blip2sweep.errors import UserError
from blip2sweep.tasks.content import images_digest, planned_part

ORIGIN = {
    "coco": "cocodataset.org, Download, '2014/2017 Train/Val annotations' and images",
    "karpathy": "cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip",
    "vqav2": "visualqa.org/download.html",
}


@dataclass(frozen=True)
class Sample:
    """One thing to answer: an image id for captions, a question id for VQA. `image` is a path on this machine."""

    id: int
    image_id: int
    image: Path
    question: str | None
    references: tuple[str, ...]
    answer_type: str | None = None

    @property
    def majority(self) -> str:
        """The reference most annotators gave, the first of them in file order."""
        return Counter(self.references).most_common(1)[0][0]


@dataclass(frozen=True, eq=False)
class TaskData:
    """The samples of one task in file order. `fingerprint` is a sha256 over ids, questions, references, image names.

    planned: the digest that the images' content has to have, where a plan has said so: whoever decodes them compares.
    """

    name: str
    kind: str  # "caption" or "vqa"
    samples: tuple[Sample, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()
    on_bad_image: str = "error"
    planned: str | None = None

    @cached_property
    def content(self) -> str:
        """sha256 over ids and bytes of the images: as planned, else of the files as they are. Raises UserError where one
        cannot be read, unless such are skipped."""
        return self.planned or images_digest(self.images, self.on_bad_image == "skip")

    def part(self, samples: Sequence[Sample]) -> TaskData:
        """Some of the samples, whose images hold what was planned of all."""
        own = replace(self, samples=tuple(samples), planned=None)
        if self.planned is None:
            return own
        return replace(own, planned=planned_part(self.images, self.planned, own.images, self.name))

    @cached_property
    def images(self) -> dict[int, Path]:
        """{image id: path} of the distinct images, in order of first appearance: the row order of all features."""
        return {s.image_id: s.image for s in self.samples}


def fingerprint(samples: Sequence[Sample], root: Path) -> str:
    """sha256 over (id, image id, image name in `root`, question, references, answer type) of the samples in order."""
    total = hashlib.sha256()
    names = {image: image.relative_to(root).as_posix() for image in {s.image_id: s.image for s in samples}.values()}
    for s in samples:
        row = [s.id, s.image_id, names[s.image], s.question, list(s.references), s.answer_type]
        total.update(canonical_json(row).encode() + b"\n")
    return total.hexdigest()


def read_json(path: Path, origin: str) -> Mapping[str, Any]:
    """An annotation file. Raises UserError when it is missing, truncated, or not an object."""
    if not path.is_file():
        raise UserError(
            f"{path}: no such annotation file; right: the official file of that name, from {ORIGIN[origin]}"
        )
    try:
        data = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(
            f"{path}: {_where(error)}: truncated or damaged; right: fetch it again from {ORIGIN[origin]}"
        ) from error
    if not isinstance(data, dict):
        raise UserError(f"{path}: a JSON {type(data).__name__}; right: the official file, from {ORIGIN[origin]}")
    return data


def _where(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON at line {error.lineno} column {error.colno} (character {error.pos}: {error.msg})"
    return f"not JSON ({error})"


def rows(data: Mapping[str, Any], field: str, keys: Iterable[str], path: Path, origin: str) -> list[dict[str, Any]]:
    """The list `field` of an annotation file, each entry holding `keys`."""
    found = data.get(field)
    if not isinstance(found, list):
        raise UserError(f"{path}: no list '{field}'; right: the official file, from {ORIGIN[origin]}")
    for i, row in enumerate(found):
        for key in keys:
            if not isinstance(row, dict) or key not in row:
                raise UserError(f"{path}: {field}[{i}] has no '{key}'; right: the official file, from {ORIGIN[origin]}")
    return found


def image_path(root: Path, folder: str, name: str, where: Path) -> Path:
    """`root/folder/name`, refused when what an annotation file says leads out of `root`."""
    inner = Path(folder) / name
    if inner.is_absolute() or ".." in inner.parts or "\0" in str(inner):
        raise UserError(f"{where}: image file '{inner}' leads out of the data folder {root}; right: a name inside it")
    return root / inner


def check_images(samples: Sequence[Sample], root: Path, where: Path, origin: str) -> None:
    """Every image exists and stays in its folder: one directory listing a folder, no file is opened.

    A folder that the user linked to elsewhere is followed; a linked image may not leave it.
    """
    wanted: dict[Path, dict[str, Path]] = {}
    for image in {s.image_id: s.image for s in samples}.values():
        wanted.setdefault(image.parent, {})[image.name] = image
    missing = [image for folder, names in wanted.items() for image in _missing(folder, names, where)]
    if missing:
        total = sum(map(len, wanted.values()))
        raise UserError(
            f"{missing[0]}: no such image ({len(missing)} of {total} named by {where} are missing); "
            f"right: the images under {root}, from {ORIGIN[origin if origin != 'karpathy' else 'coco']}"
        )


def _missing(folder: Path, names: Mapping[str, Path], where: Path) -> list[Path]:
    if not folder.is_dir():
        return list(names.values())
    with os.scandir(folder) as entries:
        there = {e.name: e.is_symlink() for e in entries}
    home = folder.resolve()
    for name, image in names.items():
        if there.get(name) and not Path(os.path.realpath(image)).is_relative_to(home):  # which no loop of links stops
            raise UserError(f"{where}: image file '{image}' is a link out of {folder}; right: the image itself")
    return [image for name, image in names.items() if name not in there]


def limited(found: list[dict[str, Any]], limit: Any) -> list[dict[str, Any]]:
    """The first `limit` entries (all when null)."""
    if limit is None:
        return found
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise UserError(f"task.limit={limit}: right: a positive integer, or null for all samples")
    return found[:limit]
