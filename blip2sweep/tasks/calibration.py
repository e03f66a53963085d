"""The samples that calibrated methods measure: drawn by a seed from a training split that shares no image with what is
evaluated. No torch here: planning chooses them, the worker chooses the same ones again.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from blip2sweep.canonical import digest
from blip2sweep.errors import UserError
from blip2sweep.tasks.content import READING
from blip2sweep.tasks.generation import Generation, resolve_generation
from blip2sweep.tasks.question_text import RAW
from blip2sweep.tasks.sample import TaskData, fingerprint
from blip2sweep.tasks.settings import base
from blip2sweep.tasks.task import format_of

UPSTREAM = ("part", "full", "model")
SEMANTICS = 1  # raise it when the same choice is measured differently
MOST_THREADS = 1024
BATCH = 32  # samples that run together


@dataclass(frozen=True, eq=False)
class Calibration:
    """task: the config of the split; data: the chosen samples; prompt, question: as generation words them for their kind.

    upstream: what the layers before a layer are while it is measured (see conf/calibration/task.yaml). threads, batch:
    CPU threads and samples at a time, which decide in what order sums are added up.
    """

    task: dict[str, Any]
    data: TaskData
    name: str
    n_samples: int
    seed: int
    upstream: str
    image_token_weight: float
    text_only: bool
    prompt: str | None
    threads: int = 1
    batch: int = BATCH
    question: str = RAW

    @cached_property
    def identity(self) -> dict[str, object]:
        """What determines the measurements: the samples themselves, whichever config chose them."""
        return {
            "semantics": SEMANTICS,
            "samples": self.data.fingerprint,
            "images": None if self.text_only else self.data.content,
            "pictures": None if self.text_only else READING,
            "kind": self.data.kind,
            "prompt": self.prompt,
            **self._rewritten,
            "upstream": self.upstream,
            "image_token_weight": None if self.text_only else self.image_token_weight,
            "text_only": self.text_only,
            "arithmetic": self.arithmetic,
        }

    @property
    def _rewritten(self) -> dict[str, object]:
        return {} if self.question == RAW else {"question": self.question}

    @property
    def arithmetic(self) -> dict[str, int]:
        """What determines the order in which sums are added up."""
        return {"threads": self.threads, "batch": self.batch}

    def measured(self, tells_tokens_apart: bool) -> dict[str, object]:
        """What the measurements of a part depend on, besides upstream. The weight of image tokens counts for the
        language part."""
        own = {k: v for k, v in self.identity.items() if k != "upstream"}
        return own if tells_tokens_apart else {**own, "image_token_weight": None}

    def digest(self, tells_tokens_apart: bool, before: Sequence[str], deep: bool, reads: object = None) -> str:
        """Twelve hex digits for the schemes of a part.

        before: hashes of the recipes of the touched parts before it. deep: whether layers of several of its blocks are
        touched. reads: what the methods read of the anatomy, as JSON. Every `upstream` gives the same digest where no
        compressed layer comes before a measured one.
        """
        upstream = self.upstream
        if upstream == "model" and not before:
            upstream = "part"
        if upstream == "part" and not deep:
            upstream = "full"
        content = [self.measured(tells_tokens_apart), upstream, list(before) if upstream == "model" else None]
        return digest([*content, reads] if reads else content)[:12]

    def columns(self) -> dict[str, object]:
        """The calibration columns of a row."""
        return {
            "calibration": self.name,
            "calibration_samples": self.n_samples,
            "calibration_seed": self.seed,
            "calibration_upstream": self.upstream,
            "calibration_threads": self.threads,
            "calibration_data": digest([self.identity["samples"], self.identity["images"]])[:12],
        }

    def job(self) -> dict[str, object]:
        """What a worker needs to choose the same samples."""
        fields = (
            "task",
            "name",
            "n_samples",
            "seed",
            "upstream",
            "image_token_weight",
            "text_only",
            "prompt",
            "threads",
        )
        planned = {k: self.identity[k] for k in ("samples", "images")}
        return {k: getattr(self, k) for k in fields} | self._rewritten | {"planned": planned}


def settings(config: Mapping[str, Any], task: Mapping[str, Any]) -> dict[str, Any]:
    """The task config of the split to draw from: the calibration's own, or the task's `train_split`. `annotations` is kept
    only where it names the file of every split, `images` where it does not name the split that is evaluated, and no
    setting of a task in that of another."""
    if config.get("kind"):
        own = {k: config[k] for k in ("name", "kind", "format", "data_dir", "split")}
        return {**base(task), **own, "limit": None, "note": None}
    split = config.get("split") or task.get("train_split")
    if not split:
        raise UserError(
            f"calibration={config['name']}: task {task['name']} names no train_split; right: task.train_split=…, or "
            f"calibration=coco"
        )
    return of_split(task, split)


def of_split(task: Mapping[str, Any], split: str) -> dict[str, Any]:
    """The task's section with another split: all of its samples."""
    every = "{split}" in str(task.get("annotations")) or getattr(format_of(str(task["format"])), "ALL_SPLITS", False)
    other = {"annotations"} if not every else set()
    other |= {"images"} if str(task["split"]) in str(task.get("images")) else set()
    kept = {name: value for name, value in task.items() if name not in other}
    return {**kept, "split": split, "limit": None, "note": None}


def check(config: Mapping[str, Any]) -> None:
    """Raise UserError naming the value that is wrong."""
    for name, least in (("n_samples", 1), ("seed", 0), ("threads", 1)):
        if not isinstance(config[name], int) or config[name] < least:
            raise UserError(f"calibration.{name}={config[name]}: right: an integer from {least} up")
    if config["threads"] > MOST_THREADS:
        raise UserError(f"calibration.threads={config['threads']}: right: at most {MOST_THREADS}")
    if config["upstream"] not in UPSTREAM:
        raise UserError(f"calibration.upstream={config['upstream']}: right: {', '.join(UPSTREAM)}")
    if not 0 <= config["image_token_weight"] <= 1000:
        raise UserError(f"calibration.image_token_weight={config['image_token_weight']}: right: from 0 to 1000")


def choose(split: TaskData, n_samples: int, seed: int) -> TaskData:
    """`n_samples` of a split, drawn by `seed`; a larger draw contains the smaller one.

    Raises UserError for too many.
    """
    if n_samples > len(split.samples):
        raise UserError(
            f"calibration.n_samples={n_samples}: {split.name} has {len(split.samples)}; right: at most as many"
        )
    order = random.Random(seed).sample(range(len(split.samples)), len(split.samples))
    chosen = tuple(split.samples[i] for i in order[:n_samples])
    whole = fingerprint(chosen, root_of(split))
    return replace(split, samples=chosen, fingerprint=whole, on_bad_image="error", planned=None)


def root_of(split: TaskData) -> Path:
    """The folder that image names are relative to: the one above their folder, or the common one of several folders."""
    folders = {s.image.parent for s in split.samples}
    return next(iter(folders)).parent if len(folders) == 1 else Path(os.path.commonpath(folders))


def calibration(
    config: Mapping[str, Any],
    split: TaskData,
    task: Mapping[str, Any],
    generation: Mapping[str, Any],
    family: str,
    prompts: Mapping[str, str] | None = None,
) -> Calibration:
    """The calibration of a cell. config, task, generation: the composed sections; task is that of the split.

    family, prompts: of the model, as `resolve_generation` reads them.
    """
    fields = ("name", "n_samples", "seed", "upstream", "image_token_weight", "text_only", "threads")
    shared = {k: config[k] for k in fields}
    data = choose(split, config["n_samples"], config["seed"])
    if unanswered := [s.id for s in data.samples if not data.rules.targets(s, 1)]:
        raise UserError(
            f"calibration={config['name']}: {task['name']} {task['split']} has no answers, such as to {unanswered[0]}; right: "
            f"calibration.split= one with annotations"
        )
    wording = worded(generation, split.kind, family, prompts)
    return Calibration(dict(task), data, prompt=wording.prompt, question=wording.question, **shared)


def worded(generation: Mapping[str, Any], kind: str, family: str, prompts: Mapping[str, str] | None) -> Generation:
    """The settings of the cell's preset for this kind of task, with the user's own prompt where it fits the kind."""
    try:
        return resolve_generation(generation, kind, family, prompts)[0]
    except UserError:
        return resolve_generation({**generation, "prompt": None}, kind, family, prompts)[0]
