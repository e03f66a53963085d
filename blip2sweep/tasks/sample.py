"""The data of a task: samples with a picture and references, some with a question and choices."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from blip2sweep.cache.disk import user_folder
from blip2sweep.canonical import canonical_json
from blip2sweep.errors import UserError
from blip2sweep.metrics.statistics import BUILT_IN, by_order
from blip2sweep.metrics.variants import Variant, variants
from blip2sweep.rows import Id
from blip2sweep.rows.fields import Wrong, file_name
from blip2sweep.tasks.content import images_digest, planned_part
from blip2sweep.tasks.existence import missing_images
from blip2sweep.tasks.settings import declared
from blip2sweep.tasks.settings import main_metric as of_variant
from blip2sweep.tasks.task import Task, task_of

if TYPE_CHECKING:
    from blip2sweep.tasks.predictions import Predictions

T = TypeVar("T")

ORIGIN = {
    "coco": "cocodataset.org, Download, '2014/2017 Train/Val annotations' and images",
    "karpathy": "cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip",
    "vqav2": "visualqa.org/download.html",
    "textvqa": "textvqa.org/dataset",
    "vizwiz": "vizwiz.org/tasks-and-datasets/vqa",
}

NO_DETAILS: Mapping[str, object] = {}  # one for all samples, because a full split has 200,000


@dataclass(frozen=True)
class Sample:
    """One thing to answer: an image id for captions, a question id for VQA. `image` is a path on this machine.

    answer_type: of a question, where its file says. choices: what there is to choose from; the references are the right
    ones. details: further facts as JSON, such as OCR tokens or a domain. scoring: facts that only scores read, from
    a file that may come later; they are no part of the fingerprint.
    """

    id: Id
    image_id: Id
    image: Path
    question: str | None
    references: tuple[str, ...]
    answer_type: str | None = None
    choices: tuple[str, ...] = ()
    details: Mapping[str, object] = field(default_factory=lambda: NO_DETAILS, hash=False)
    scoring: Mapping[str, object] = field(default_factory=lambda: NO_DETAILS, hash=False)

    @property
    def majority(self) -> str:
        """The reference most annotators gave, the first of them in file order."""
        return Counter(self.references).most_common(1)[0][0]


@dataclass(frozen=True, eq=False)
class TaskData:
    """The samples of one task in file order. `fingerprint` is a sha256 over ids, questions, references, image names.

    planned: the digest that the images' content has to have, where a plan has said so: whoever decodes them compares.
    main_metric: what `task.main_metric` says, of the first variant; empty of samples that nobody scores. scoring: the
    chosen values of every scoring setting of the kind. settings: those that are part of the key.
    """

    name: str
    kind: str  # names what is asked and how it is scored, in tasks/task.py
    samples: tuple[Sample, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()
    on_bad_image: str = "error"
    planned: str | None = None
    main_metric: str = ""
    scoring: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)

    @cached_property
    def content(self) -> str:
        """sha256 over ids and bytes of the images: as planned, else of the files as they are. Raises UserError where
        one cannot be read, unless such are skipped."""
        return self.planned or images_digest(self.images, self.on_bad_image == "skip")

    @property
    def variants(self) -> list[Variant]:
        """The combinations of the chosen scoring settings, the first values first; one without a suffix where there are
        none."""
        return variants(declared(self.rules), self.scoring)

    def scored_by(self, scoring: Mapping[str, tuple[str, ...]], main_metric: str) -> TaskData:
        """The same samples, scored in another way. main_metric: without the suffix of a variant."""
        first = variants(declared(self.rules), scoring)[0]
        other = replace(self, scoring=scoring, main_metric=of_variant(main_metric, first.suffix))
        scores = other.rules.scores(other)
        if other.main_metric not in scores and not by_order(scores):  # nothing that a table may be about
            other = replace(other, main_metric="")
        if "content" in vars(self):
            vars(other)["content"] = self.content
        return other

    def scored_by_one(self, variant: Variant) -> TaskData:
        """The same samples, scored by one of the variants."""
        return replace(self, scoring={name: (value,) for name, value in variant.values.items()})

    def part(self, samples: Sequence[Sample]) -> TaskData:
        """The data of some samples. The images of all samples are checked against the plan."""
        own = replace(self, samples=tuple(samples), planned=None)
        if self.planned is None:
            return own
        return replace(own, planned=planned_part(self.images, self.planned, own.images, self.name))

    def share(self, rank: int, count: int) -> TaskData:
        """The data of one of `count` processes: a run of neighbouring images, with all of their samples. The shares have
        equal numbers of images, but for one."""
        images = list(self.images)
        own = set(images[len(images) * rank // count : len(images) * (rank + 1) // count])
        return self.part([s for s in self.samples if s.image_id in own])

    @cached_property
    def rules(self) -> Task:
        """The task of these samples: its requests and its scoring."""
        return task_of(self.kind)

    @cached_property
    def columns(self) -> dict[str, str]:
        """The columns of a row about the task, besides those that every row has. `main_metric` is one of them where a
        table could not infer it from the metrics of the row. Of a variant it is always one, because other variants may
        be scored later."""
        first = by_order(self.rules.scores(self))[:1]
        told = not self.main_metric or (self.main_metric in first and self.main_metric in BUILT_IN)
        told &= not self.variants[0].suffix
        return {**self.rules.columns(self), **({} if told else {"main_metric": self.main_metric})}

    def readable_outputs(self, predictions: Predictions) -> list[str]:
        """The output for each sample as people read it: of a choice its text, of a ranking what the kind writes."""
        if readable := getattr(self.rules, "readable", None):
            return list(readable(self, predictions))
        known = {s.id: s.choices for s in self.samples} if predictions.choice else {}
        return [
            known[i][int(word)] if known.get(i) else word
            for i, word in zip(predictions.id, predictions.outputs, strict=True)
        ]

    @cached_property
    def images(self) -> dict[Id, Path]:
        """{image id: path} of the distinct images, in order of first appearance. Features have rows in this order."""
        return {s.image_id: s.image for s in self.samples}


def fingerprint(samples: Sequence[Sample], root: Path) -> str:
    """sha256 over (id, image id, image name in `root`, question, references, answer type) of the samples in order, and
    over the choices and details of those that have some."""
    total = hashlib.sha256()
    names = {image: _inner(root, image) for image in {s.image_id: s.image for s in samples}.values()}
    for s in samples:
        row: list[object] = [s.id, s.image_id, names[s.image], s.question, list(s.references), s.answer_type]
        row += [list(s.choices)] if s.choices else []
        row += [dict(s.details)] if s.details else []
        total.update(canonical_json(row).encode() + b"\n")
    return total.hexdigest()


def official(origin: str) -> str:
    """A description of the expected file, for messages. origin: a key of ORIGIN, or a description of where the file
    comes from."""
    return f"the official file, from {ORIGIN.get(origin, origin)}"


def _inner(root: Path, image: Path) -> str:
    """The name of an image in the data folder, or in the user's for pictures, which has the same names."""
    try:
        return image.relative_to(root).as_posix()
    except ValueError:
        return image.relative_to(user_pictures() or root).as_posix()


def user_pictures() -> Path | None:
    """The user's folder for pictures that data files have inside, where the data folder cannot be written."""
    folder = user_folder()
    return folder / "pictures" if folder else None


def image_path(root: Path, folder: str, name: str, where: Path) -> Path:
    """`root/folder/name`, refused when what the command line or an annotation file says leads out of `root`."""
    try:
        inner = file_name(f"{folder}/{name}" if folder else name)
    except Wrong as wrong:
        raise UserError(f"{where}: the image file {wrong}") from wrong
    return root / inner


def inside(root: Path, given: object, field: str) -> str:
    """A file or folder of the data as a name in `root`. given: relative to `root`, or absolute inside it. Raises
    UserError naming the field for one outside, and for what is no name."""
    if not isinstance(given, str) or not given:
        raise UserError(f"{field}={given}: no name; right: a name in task.data_dir={root}")
    path = Path(given)
    name = path.relative_to(root) if path.is_absolute() and path.is_relative_to(root) else path
    if name.is_absolute() or ".." in name.parts:
        raise UserError(f"{field}={given}: outside of the data folder; right: a name in task.data_dir={root}")
    return name.as_posix()


def annotation_files(root: Path, given: object, split: str, count: int = 1) -> list[Path]:
    """The files that `task.annotations` names in place of a format's own, `{split}` in them replaced by the split.

    given: a name in the data folder or in its `annotations/`, or a list of `count` names. Raises UserError for another
    number, and for a file that is not there.
    """
    names = list(given) if isinstance(given, list | tuple) else [given]
    if len(names) != count:
        raise UserError(f"task.annotations={given}: {len(names)} files; right: {count} for this format")
    field = "task.annotations"
    inner = [inside(root, n.replace("{split}", split) if isinstance(n, str) else n, field) for n in names]
    paths = [root / n if (root / n).is_file() else root / "annotations" / n for n in inner]
    if lacking := [name for name, path in zip(inner, paths, strict=True) if not path.is_file()]:
        where = f"{lacking[0]} in task.data_dir={root}, nor in its folder annotations"
        raise UserError(f"{field}={given}: no such file {where}; right: the name of a file there")
    return paths


def check_images(samples: Sequence[Sample], root: Path, where: Path, origin: str) -> None:
    """Check that every image exists and stays in its folder (existence.py says which may lack)."""
    named = {s.image_id: s.image for s in samples}.values()
    if missing := missing_images(named, where):
        total, images = len(set(named)), origin if origin != "karpathy" else "coco"
        raise UserError(
            f"{missing[0]}: no such image ({len(missing)} of {total} named by {where} are missing); "
            f"right: the images under {root}, from {ORIGIN.get(images, images)}"
        )


def limited(found: list[T], limit: object) -> list[T]:
    """The first `limit` values, or all where it is null. Raises UserError for a limit that is no positive integer."""
    if limit is None:
        return found
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise UserError(f"task.limit={limit}: right: a positive integer, or null for all samples")
    return found[:limit]
