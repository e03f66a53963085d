"""Whether two data share images: what is measured or trained on is never evaluated."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from blip2sweep.errors import UserError
from blip2sweep.rows import Id
from blip2sweep.tasks.content import UNREADABLE, file_digests
from blip2sweep.tasks.sample import TaskData


def check_disjoint(
    split: TaskData, config: Mapping[str, Any], evaluated: TaskData, task: Mapping[str, Any],
    key: str = "calibration.split",
) -> None:  # fmt: skip
    """Raise UserError where the split has an image that the task evaluates. key: of the split, for the message."""
    _refuse_shared(shared_images(split, config, evaluated, task), f"{key}={config['split']}", evaluated)


def shared_images(
    split: TaskData, config: Mapping[str, Any], other: TaskData, of_other: Mapping[str, Any]
) -> Collection[Id]:
    """Ids of the images that two data have both. config, of_other: their sections.

    Image ids are compared where both have ids of one origin. Else pictures of the same id are.
    """
    shared = split.images.keys() & other.images.keys()
    if _origin_of_ids(split, config) == _origin_of_ids(other, of_other):
        return shared
    both = list(shared)
    ours, theirs = (file_digests([data.images[i] for i in both]) for data in (split, other))
    return {i for i, a, b in zip(both, ours, theirs, strict=True) if a.digest and a.digest == b.digest}


def _origin_of_ids(data: TaskData, config: Mapping[str, Any]) -> str:
    """Whose ids the images have: COCO's, which the names of its files hold in every folder, or those of one folder."""
    folder = str(config["data_dir"])
    named = [path.stem.endswith(f"{i:012d}") for i, path in data.images.items() if isinstance(i, int)]
    return "coco" if named and all(named) and not folder.startswith("pkg://") else folder


def check_other_pictures(chosen: TaskData, where: str, evaluated: TaskData, key: str = "calibration.split") -> None:
    """Raise UserError where a chosen picture is evaluated too, also under another id or name."""
    _refuse_shared(same_pictures(chosen, evaluated), f"{key}={where}", evaluated)


def same_pictures(chosen: TaskData, other: TaskData) -> set[Id]:
    """Ids of the chosen pictures that other data have too, whatever their ids or names there."""
    theirs = {f.digest for f in file_digests(list(other.images.values()))} - {UNREADABLE}
    ours = file_digests(list(chosen.images.values()))
    return {i for i, f in zip(chosen.images, ours, strict=True) if f.digest in theirs}


def _refuse_shared(shared: Collection[Id], where: str, evaluated: TaskData) -> None:
    if shared:
        raise UserError(
            f"{where}: {len(shared)} of its images are evaluated by task {evaluated.name}, such as {min(shared)}; right: "
            f"a split that shares none"
        )
