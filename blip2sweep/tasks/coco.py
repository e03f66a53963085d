"""COCO captions and what has their form: the official `captions_<split>.json`, own files, nocaps with a domain an image.
Splits named `karpathy_…` are those of `dataset_coco.json`, which `karpathy.py` reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from blip2sweep.errors import UserError, nearest
from blip2sweep.metrics.domains import DOMAINS
from blip2sweep.rows import Id, Image, Mistakes, caption_rows, domain_rows, image_rows, list_of, read_json
from blip2sweep.rows.fields import shown
from blip2sweep.tasks import karpathy
from blip2sweep.tasks.karpathy import PREFIX
from blip2sweep.tasks.sample import (
    ORIGIN,
    Sample,
    annotation_files,
    check_images,
    image_path,
    inside,
    limited,
    official,
)

KARPATHY_SPLITS = ("train", "restval", "val", "test")
KINDS: tuple[str, ...] = ("caption", "retrieval")
OPTIONS: tuple[str, ...] = ("domain",)
ALL = "all"
NOCAPS = "nocaps.org, nocaps_val_4500_captions.json, and the images it names"
# The published study's images (its first 1000 of val2017): BLIP-2 saw most of them in pre-training.
NOTES = {("val2017", 1000): "783 of these 1000 images are in the Karpathy train split: seen in pre-training"}


def read(
    root: Path,
    split: str,
    limit: int | None,
    annotations: object = None,
    images: object = None,
    domain: str | None = None,
) -> tuple[list[Sample], list[str]]:
    """The samples in file order, and notes.

    split: `karpathy_test` and its like, or that of a captions file (`val2017`). annotations: a file in place of the
    split's; images: a folder in place of that of the split's name. domain: `all` reads the domain of each image into
    `details`, one of DOMAINS selects its images; null reads none.
    """
    if domain is not None and domain not in (ALL, *DOMAINS):
        raise UserError(f"task.domain={domain}: {nearest(domain, (ALL, *DOMAINS))}")
    given = None if annotations is None else annotation_files(root, annotations, split)[0]
    if split.startswith(PREFIX):
        return karpathy.from_file(given or _karpathy_file(root, split), root, split, limit, images), []
    path = given or _captions_file(root, split)
    folder = split if images is None else inside(root, images, "task.images")
    samples = _samples(path, root, folder, domain, limit)
    check_images(samples, root, path, NOCAPS if domain else "coco")
    note = None if given else NOTES.get((split, len(samples)))
    return samples, [note] if note else []


def _samples(path: Path, root: Path, folder: str, domain: str | None, limit: int | None) -> list[Sample]:
    images, captions, domains = _read(path, domain)
    chosen = images if domain in (None, ALL) else [image for image in images if domains[image.id] == domain]
    if not chosen:
        raise UserError(f"task.domain={domain}: no image of {path} is in it; right: {ALL}, or {_right(domain)}")
    return [
        Sample(
            image.id,
            image.id,
            image_path(root, folder, image.name, path),
            None,
            tuple(captions[image.id]),
            details={"domain": domains[image.id]} if domains else {},
        )
        for image in limited(chosen, limit)
    ]


def _read(path: Path, domain: str | None) -> tuple[list[Image], dict[Id, list[str]], dict[Id, str]]:
    """The images of a file, their captions, and their domains where those are asked for."""
    right, mistakes = _right(domain), Mistakes()
    data = read_json(path, right)
    rows = list_of(data, "images", path, right)
    if domain and not any(type(row) is dict and "domain" in row for row in rows):
        raise UserError(f"{path}: no image has a 'domain', so this is not nocaps; right: {right}, or task.domain=null")
    images = image_rows(path, rows, mistakes)
    domains = domain_rows(path, rows, DOMAINS, mistakes) if domain else {}
    captions = caption_rows(path, list_of(data, "annotations", path, right), mistakes, images)
    if not mistakes.count:
        _check_captioned(path, images, captions, mistakes)
    mistakes.tell()
    return images, captions, domains


def _check_captioned(path: Path, images: Sequence[Image], captions: Mapping[Id, list[str]], mistakes: Mistakes) -> None:
    for i, image in enumerate(images):
        if image.id not in captions:
            mistakes.add(
                path, f"images[{i}] (id {shown(image.id)})", "has no caption; right: an annotation for every image"
            )


def _right(domain: str | None) -> str:
    return official(NOCAPS if domain else "coco")


def _captions_file(root: Path, split: str) -> Path:
    path = root / "annotations" / f"captions_{split}.json"
    if path.is_file():
        return path
    there = sorted(p.stem.removeprefix("captions_") for p in path.parent.glob("captions_*.json"))
    hint = nearest(split, [*there, *(PREFIX + s for s in KARPATHY_SPLITS)])
    raise UserError(f"task.split={split}: no annotation file {path}; {hint}; official files: {ORIGIN['coco']}")


def _karpathy_file(root: Path, split: str) -> Path:
    if split.removeprefix(PREFIX) not in KARPATHY_SPLITS:
        raise UserError(f"task.split={split}: unknown split; {nearest(split, [PREFIX + s for s in KARPATHY_SPLITS])}")
    path = root / "annotations" / "dataset_coco.json"
    return root / path.name if not path.is_file() and (root / path.name).is_file() else path
