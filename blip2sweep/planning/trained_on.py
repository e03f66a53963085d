"""The training samples of a cell that is recovered, chosen while it is planned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from blip2sweep.compression.recover.spec import Recovery
from blip2sweep.errors import UserError
from blip2sweep.planning.model import Model
from blip2sweep.tasks import TaskData, load_task
from blip2sweep.tasks.calibration import Calibration
from blip2sweep.tasks.disjoint import check_disjoint, check_other_pictures, same_pictures, shared_images
from blip2sweep.tasks.settings import without_scoring
from blip2sweep.tasks.training import (
    Training,
    check_kind,
    check_learnable,
    choose,
    n_drawn,
    split_section,
    wording,
)

T = TypeVar("T")
KEY = "recover.split"


class Once(Protocol):
    """`CellBuilder._once`: what is made of a section is made once."""

    def __call__(self, kind: str, section: Any, make: Callable[[Any], T]) -> T: ...


def training_of(
    config: Mapping[str, Any], spec: Recovery, model: Model, task: TaskData, measured: Calibration | None, once: Once
) -> Training:
    """The training samples of a cell.

    config: of the cell. spec: how its layers are trained. task: that is evaluated. measured: the calibration samples,
    whose images are left out. Raises UserError, one line, where there are none, and where images are evaluated too.
    """
    check_kind(task)
    recover, evaluated = config.get("recover") or {}, without_scoring(config["task"])
    section = split_section(recover, evaluated)
    split = once(
        "train split", [section, recover.get("split")], lambda a: split_of(a[0], KEY if a[1] else "task.train_split")
    )
    once("train disjoint", [section, evaluated], lambda a: check_disjoint(split, a[0], task, a[1], KEY))
    left_out = measured.job() if measured else None
    words = [config["generation"], task.kind, model.presets, model.config.get("prompts")]
    own = [
        {"n_samples": recover.get("n_samples"), "split": section["split"]},
        spec.seed,
        spec.holdout,
    ]

    def made(_: object) -> Training:
        training = _chosen(own, section, split, measured)
        prompt, question = wording(*words)
        found = Training(**{**training, "prompt": prompt, "question": question})
        check_other_pictures(found.data, section["split"], task, KEY)
        assert check_learnable(found).identity
        return found

    return once("training", [own, section, evaluated, words, left_out], made)


def split_of(section: Mapping[str, Any], key: str) -> TaskData:
    """The samples of a split. key: of the config, which chose it. Raises UserError that names it."""
    try:
        return load_task(section)
    except UserError as error:
        said = str(error)
        named = (
            said.replace("task.split=", f"{key}=", 1) if "task.split=" in said else f"{key}={section['split']}: {said}"
        )
        raise UserError(named) from error


def used_of_samples(config: Mapping[str, Any]) -> frozenset[str]:
    """The config keys that choose training samples, also where a recipe file says how layers are trained."""
    recover = config.get("recover") or {}
    return frozenset(f"recover.{k}" for k in ("n_samples", "split", "data_dir") if recover.get(k) is not None)


def _chosen(
    own: list[Any], section: Mapping[str, Any], split: TaskData, measured: Calibration | None
) -> dict[str, Any]:
    """The fields of `Training` about the samples. Pictures that calibration measures under other ids are left out, too."""
    recover, seed, holdout = own
    without = set(shared_images(split, section, measured.data, measured.task)) if measured else set()
    while True:
        left = sum(s.image_id not in without for s in split.samples)
        count = n_drawn(recover, split, left)
        data = choose(split, count, seed, without)
        others = same_pictures(data, measured.data) if measured else set()
        if not others:
            break
        without |= others
    found = {"task": dict(section), "data": data, "n_samples": count, "seed": seed, "holdout": holdout}
    return {**found, "without": tuple(i for i in split.images if i in without)}
