"""One training from beginning to end, in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from blip2sweep.apply.recovery.deterministic import deterministic
from blip2sweep.apply.recovery.learner import Learner
from blip2sweep.apply.recovery.lessons import Pictures, Texts, check_learns, pixels_of, untrained
from blip2sweep.apply.recovery.trainer import Outcome, Trainer
from blip2sweep.machine import stopping

if TYPE_CHECKING:
    from blip2sweep.apply.recovery.group import Group
    from blip2sweep.apply.recovery.progress import Checkpoints
    from blip2sweep.compression.recover.spec import Recovery
    from blip2sweep.models.images import Features
    from blip2sweep.models.load import Loaded
    from blip2sweep.tasks.training import Training


@dataclass(frozen=True, eq=False)
class Course:
    """What is trained and on what. paths: of the layers, in the order of the anatomy."""

    spec: Recovery
    paths: tuple[str, ...]
    training: Training


def train(
    loaded: Loaded, course: Course, teacher: Loaded | None, group: Group, checkpoints: Checkpoints,
    pixels: Features | None = None, asked: Callable[[], bool] = stopping.asked,
) -> Outcome:  # fmt: skip
    """Train the layers of a compressed model, and leave it as it was.

    teacher: the uncompressed model, for distillation. pixels: of the training images, where they are known. Raises
    UserError for a model that writes no text and for images that cannot be read, and what `Trainer` raises.
    """
    check_learns(loaded)
    seen = pixels or pixels_of(loaded, course.training)
    with deterministic(loaded.device) as said, Learner(loaded.model, course.paths, course.spec) as learner:
        texts, own = Texts(loaded, course.training), Pictures(loaded, seen, untrained(loaded, course.paths))
        other = Pictures(teacher, seen, len(teacher.images)) if teacher else None
        outcome = Trainer(course.spec, texts, own, other, learner, group, checkpoints)(asked)
    return replace(outcome, reproducible=said.reproducible)
