"""The samples that recovery is trained on: drawn by a seed from a training split that shares no image with what is
evaluated or what calibration measures. No torch here: planning chooses them, the worker chooses the same ones again.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, cast

from blip2sweep.canonical import digest
from blip2sweep.errors import UserError
from blip2sweep.rows import Id
from blip2sweep.tasks import load_task
from blip2sweep.tasks.calibration import of_split, root_of, worded
from blip2sweep.tasks.content import READING
from blip2sweep.tasks.question_text import RAW
from blip2sweep.tasks.sample import Sample, TaskData, fingerprint
from blip2sweep.tasks.task import asks_chat
from blip2sweep.wire.recovery import RecoveryJob

SEMANTICS = 1  # raise it when the same choice is read differently
MOST_TARGETS = 1000  # texts of one sample that are learnt
# Samples that are drawn where nothing else is said: as many as the default steps read. It is the same for all steps and
# batch sizes, so that cells which differ in these are trained on one set.
MOST_DRAWN = 4800


class Row(NamedTuple):
    """One text to learn. sample: its number in `Training.data.samples`; target: the text, as the model was trained."""

    sample: int
    target: str


@dataclass(frozen=True, eq=False)
class Training:
    """task: the section of the split; data: the chosen samples, those of the held-out images among them; prompt, question:
    as generation words them for their kind. without: ids of images that are left out. holdout: share of the images that
    are not trained on.
    """

    task: dict[str, Any]
    data: TaskData
    n_samples: int
    seed: int
    holdout: float
    without: tuple[Id, ...] = ()
    prompt: str | None = None
    question: str = RAW

    @cached_property
    def identity(self) -> dict[str, object]:
        """What determines the training, besides the options in the recipe: the samples themselves, in their order."""
        return {
            "semantics": SEMANTICS,
            "samples": self.data.fingerprint,
            "images": self.data.content,
            "pictures": READING,
            "kind": self.data.kind,
            "prompt": self.prompt,
            **({} if self.question == RAW else {"question": self.question}),
        }

    def digest(self, reads: object) -> str:
        """Twelve hex digits for the specs of recovery. reads: what else decides the training, as JSON."""
        return digest([self.identity, reads])[:12]

    @cached_property
    def held_out_images(self) -> frozenset[Id]:
        """The first images of the draw, so that a larger draw holds out those of a smaller one too."""
        images = list(self.data.images)
        return frozenset(images[: max(1, round(self.holdout * len(images)))] if self.holdout else ())

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """What is learnt: every target of every sample whose image is not held out."""
        return tuple(row for row in self._rows if self._image(row) not in self.held_out_images)

    @cached_property
    def held_out_rows(self) -> tuple[Row, ...]:
        """What the loss is measured on that chooses the step. Empty where nothing is held out."""
        return tuple(row for row in self._rows if self._image(row) in self.held_out_images)

    @property
    def _rows(self) -> list[Row]:
        targets = self.data.rules.targets
        return [Row(i, text) for i, s in enumerate(self.data.samples) for text in targets(s, MOST_TARGETS)]

    def _image(self, row: Row) -> Id:
        return self.data.samples[row.sample].image_id

    def columns(self) -> dict[str, object]:
        """The columns of a row about the samples."""
        found = digest([self.identity["samples"], self.identity["images"]])[:12]
        return {"recover_samples": self.n_samples, "recover_data": found}

    def job(self) -> RecoveryJob:
        """What a worker needs to choose the same samples."""
        return {
            "task": self.task, "n_samples": self.n_samples, "seed": self.seed, "holdout": self.holdout,
            "without": list(self.without), "prompt": self.prompt, "question": self.question,
            "planned": {"samples": self.data.fingerprint, "images": self.data.content},
        }  # fmt: skip


def batch(rows: int, size: int, seed: int, step: int) -> list[int]:
    """The numbers of the rows of one batch: a function of its arguments alone, so that training may go on anywhere.

    The rows come in a new order each time all of them were read. step: from 0.
    """
    places = range(step * size, (step + 1) * size)
    orders = {epoch: _order(rows, seed, epoch) for epoch in {p // rows for p in places}}
    return [orders[p // rows][p % rows] for p in places]


def _order(rows: int, seed: int, epoch: int) -> list[int]:
    return random.Random(f"{seed} {epoch}").sample(range(rows), rows)


# ---- choosing


def split_section(recover: Mapping[str, Any], task: Mapping[str, Any]) -> dict[str, Any]:
    """The section of the split to train on: `recover.split`, or the task's `train_split`. task: that is evaluated."""
    split = recover.get("split") or task.get("train_split")
    if not split:
        raise UserError(
            f"recover={recover.get('method')}: task {task['name']} names no train_split; right: recover.split=…, or "
            f"task.train_split=…"
        )
    own = {"data_dir": recover["data_dir"]} if recover.get("data_dir") else {}
    return {**of_split(task, str(split)), **own}


def check_kind(data: TaskData) -> None:
    """Raise UserError for a task whose answers are not texts that the model writes or scores."""
    if "likelihood" not in data.rules.REQUESTS or asks_chat(data.rules):
        asked = "a chat model answers" if asks_chat(data.rules) else f"requests {', '.join(data.rules.REQUESTS)}"
        raise UserError(
            f"recover: task {data.name} has no texts to learn ({asked}); right: a task of captions or questions"
        )


def n_drawn(recover: Mapping[str, Any], split: TaskData, left: int) -> int:
    """The number of samples to draw: `recover.n_samples`, by default all, but no more than MOST_DRAWN.

    left: samples that may be drawn. Raises UserError where there are too few.
    """
    given = recover.get("n_samples")
    if not left:
        raise UserError(
            f"recover.split={recover.get('split')}: of {split.name} no sample is left ({len(split.samples)} in the split, "
            f"all of images that calibration measures); right: another recover.split, or a smaller calibration.n_samples"
        )
    if given is not None and given > left:
        others = " that calibration does not measure" if left < len(split.samples) else ""
        raise UserError(f"recover.n_samples={given}: {split.name} has {left} samples{others}; right: at most as many")
    return int(given) if given is not None else min(left, MOST_DRAWN)


def choose(split: TaskData, n_samples: int, seed: int, without: Collection[Id] = ()) -> TaskData:
    """`n_samples` of a split, drawn by `seed`, none of images in `without`; a larger draw contains the smaller one."""
    left = [s for s in split.samples if s.image_id not in without]
    chosen = tuple(random.Random(f"recover {seed}").sample(left, len(left))[:n_samples])
    whole = fingerprint(chosen, root_of(split))
    return replace(split, samples=chosen, fingerprint=whole, on_bad_image="error", planned=None)


def check_learnable(training: Training) -> Training:
    """The same. Raises UserError where samples have no answers, or where nothing is left to train on."""
    data, empty = training.data, [s.id for s in training.data.samples if not _targets(training, s)]
    where = f"recover.split={training.task['split']}"
    if empty:
        raise UserError(
            f"{where}: {data.name} has no answers there, such as to {empty[0]}; right: a split with annotations"
        )
    if not training.rows:
        raise UserError(
            f"recover.holdout={training.holdout}: holds out all {len(data.images)} images; right: a smaller share, or "
            f"more samples"
        )
    return training


def _targets(training: Training, sample: Sample) -> tuple[str, ...]:
    return training.data.rules.targets(sample, 1)


def wording(
    generation: Mapping[str, Any], kind: str, family: str, prompts: Mapping[str, str] | None
) -> tuple[str | None, str]:
    """(prompt, question) of the training samples: those that the evaluated samples are asked with."""
    found = worded(generation, kind, family, prompts)
    return found.prompt, found.question


def planned_training(section: RecoveryJob) -> Training:
    """The samples that planning chose, chosen again.

    Raises UserError where the annotations have changed since. An image that has changed is found when it is decoded.
    """
    fields = {k: v for k, v in section.items() if k != "planned"}
    data = choose(load_task(section["task"]), section["n_samples"], section["seed"], set(section["without"]))
    if data.fingerprint != section["planned"]["samples"]:
        raise UserError(
            f"recover: the training samples in {section['task']['data_dir']} changed since the cell was planned; right: "
            f"the same command again"
        )
    kept = cast("dict[str, Any]", {**fields, "without": tuple(section["without"])})
    return Training(data=replace(data, planned=section["planned"]["images"]), **kept)
