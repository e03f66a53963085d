"""What a cell's recovery is trained on, as planning writes it and a worker reads it."""

from __future__ import annotations

from typing import TypedDict


class PlannedSamples(TypedDict):
    """The state of the training samples when the cell was planned."""

    samples: str  # fingerprint of ids and annotations, in their order
    images: str  # digest of the images' content


class RecoveryJob(TypedDict):
    """The samples that a cell's recovery is trained on, as `tasks.training.Training.job()` writes them. How it is trained
    is in the recipe.

    task: the composed section of the training split. without: ids of its images that are left out. holdout: the share of
    the images whose loss chooses the step. prompt, question: as generation words them. planned: fingerprint of the
    chosen samples, and digest of their images' content.
    """

    task: dict[str, object]
    n_samples: int
    seed: int
    holdout: float
    without: list[int | str]
    prompt: str | None
    question: str
    planned: PlannedSamples
