"""A cell in pieces: several processes of one back end that share it, or rounds of some of its images. The job of each
piece, and the answer of all.

Each piece is all samples of its own images, so a picture is encoded once. The identity of the cell does not change. Like
the batch size, the division changes which samples are computed together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from blip2sweep.backends.backend import Answered, Artifacts, SecondRun
from blip2sweep.rows import Id
from blip2sweep.tasks import PlannedTasks
from blip2sweep.tasks.order import order_of, places_of, prefix, segments_of
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.tasks.task import task_of
from blip2sweep.wire.lines import Cost, Scalar
from blip2sweep.wire.pack import CellJob, JsonObject, TaskJob

Total = Callable[[Iterable[float]], float]  # `max`, of pieces at the same time, or `sum`, of one after the other
LARGEST = ("peak_memory_bytes",)
SMALLEST = ("batch_size", "sequence_batch_size")
ADDED = ("oom_halvings", "images_computed")
PIECES = {"share", "places"}  # fields of a task that say which of its images a job has
MEANS = ("gflops", "tokens_written")  # over samples: what names of columns begin with
SPEEDS = {"images_per_second": "image_id", "samples_per_second": "id"}  # {column: what of the predictions it counts}

ENDED = "ended"  # a file in the folder of a cell: its first process has ended its share, and calibrates nothing more


def is_divisible(job: CellJob) -> bool:
    """Whether a cell is divided.

    One with packed layers is not, because the speed of one process is measured in it. Nor is one of matches, where each
    picture is compared with the texts of all samples.
    """
    matches = "match" in task_of(job["task"]["kind"]).REQUESTS
    return not matches and not any(entry.get("packed") for entry in job["recipe"])


def share_of(job: CellJob, rank: int, count: int, folder: Path) -> CellJob:
    """The job of process `rank` of `count`."""
    task: TaskJob = {**job["task"], "share": f"{rank}/{count}"}
    return {**job, "task": task, "share": {"rank": rank, "count": count, "folder": str(folder)}}


def round_of(job: CellJob, *steps: int) -> CellJob:
    """The job of a round: the images from the first to the last of these places of the sample set's random order
    (tasks/order.py). Between each two of them is a segment that other cells may have as a round of its own."""
    task: TaskJob = {**job["task"], "places": places_of(steps)}
    return {**job, "task": task}


def segments_of_round(job: CellJob) -> list[CellJob]:
    """A round's job for each of its segments; a job that is no round, or of one segment, as it is."""
    if "places" not in job["task"]:
        return [job]
    return [round_of(job, *segment) for segment in segments_of(job["task"]["places"])]


def whole(job: CellJob) -> CellJob:
    """The cell that a job has a piece of."""
    if not PIECES & job["task"].keys():
        return job
    task = {k: v for k, v in job["task"].items() if k not in PIECES}
    return {**job, "task": task}  # type: ignore[typeddict-item]


class Joiner:
    """Joins answers."""

    def __init__(self) -> None:
        self._of = PlannedTasks()

    def __call__(self, job: CellJob, answers: Sequence[Answered], count: int) -> Answered:
        """The answer of a cell. answers: of its processes in order, without those that could read none of their images.

        count: of all processes. Raises RuntimeError where the processes did not run the same model.
        """
        predictions_of = [s.id for s in self._of(job["task"]).samples]
        found = _joined_answers(answers, predictions_of, max)
        unread = len(self._of(job["task"]).images) - len({*found.predictions.image_id})
        bad = {"bad_images": unread} if "bad_images" in found.cost else {}
        return replace(found, cost=found.cost | {"processes": count} | bad)

    def rounds(self, job: CellJob, answers: Sequence[Answered]) -> Answered:
        """The answer of a cell, or of what is known of it. answers: of its rounds. Raises as `__call__`."""
        if len(answers) == 1:
            return answers[0]
        found = _joined_answers(answers, [s.id for s in self._of(whole(job)["task"]).samples], sum)
        return replace(found, provenance=answers[-1].provenance)

    def images(self, job: CellJob) -> int:
        """How many images the cell has."""
        return len(self._of(whole(job)["task"]).images)

    def first(self, job: CellJob, images: int, found: Answered) -> Answered:
        """An answer without what it has of other images than the first of the sample set's order. Its cost stays."""
        data = self._of(whole(job)["task"])
        rows = prefix(order_of(data.fingerprint, [*data.images]), found.predictions.image_id, images)
        return replace(found, predictions=found.predictions.take(rows))

    def has_first(self, job: CellJob, images: int, predictions: Predictions) -> bool:
        """Whether predictions are of the first images of the sample set's order, and of all samples of these."""
        return [s.id for s in self._of(round_of(job, 0, images)["task"]).samples] == predictions.id


def _joined_answers(answers: Sequence[Answered], ids: Sequence[Id], total: Total) -> Answered:
    """All pieces as one. total: what becomes of the seconds that the pieces took."""
    first = answers[0]
    if len({a.layers_changed for a in answers}) > 1:
        changed = ", ".join(str(a.layers_changed) for a in answers)
        raise RuntimeError(f"the pieces of one cell changed {changed} layers, and not the same ones")
    return Answered(
        Predictions.joined([a.predictions for a in answers], ids), joined_cost(answers, total), first.layers_changed,
        first.provenance, _second([a.noise for a in answers], ids), _by_name([a.calibration_noise for a in answers], ids),
        Artifacts(**first.artifacts),
    )  # fmt: skip


# ---- second runs


def _second(runs: Sequence[SecondRun | None], ids: Sequence[object]) -> SecondRun | None:
    """The second run of all processes: outputs that differ are counted together."""
    made = [run for run in runs if run is not None]
    if not made:
        return None
    predictions = Predictions.joined([run.predictions for run in made], ids)  # type: ignore[arg-type]
    flips = sum(int(str(run.summary["flips"])) for run in made)
    told: JsonObject = {"flips": flips, "flip_rate": flips / max(1, len(predictions.id))}
    return SecondRun(predictions, {**made[0].summary, **told})


def _by_name(floors: Sequence[Mapping[str, SecondRun]], ids: Sequence[object]) -> dict[str, SecondRun]:
    joined = {name: _second([floor.get(name) for floor in floors], ids) for name in floors[0]}
    return {name: run for name, run in joined.items() if run is not None}


# ---- cost


def joined_cost(answers: Sequence[Answered], total: Total = max) -> Cost:
    """The cost of all pieces together, by column.

    Seconds, also of the whole cell, are those of the process that took most, or the sum of rounds; memory is the most. Counts of what was known are added; shares and blocks
    for each image are averaged, and what is a mean over samples is one over all of them. Other figures are the first
    process's.
    """
    names = dict.fromkeys(name for answered in answers for name in answered.cost)
    cost = {name: _joined(name, [a.cost[name] for a in answers if name in a.cost], total) for name in names}
    for name, counted in SPEEDS.items():
        if name in cost:
            cost[name] = _speed(answers, name, counted, total)
    return {name: _mean(answers, name) if name.startswith(MEANS) else value for name, value in cost.items()}


def _joined(name: str, values: Sequence[Scalar], total: Total) -> Scalar:
    numbers = [v for v in values if isinstance(v, int | float)]
    if name == "device":
        return ", ".join(dict.fromkeys(str(v) for v in values))
    if len(numbers) < len(values):
        return values[0]
    if name.startswith("seconds"):
        return total(numbers)
    if name in LARGEST:
        return max(numbers)
    if name in SMALLEST:
        return min(numbers)
    if name.startswith("hits_") and name != "hits_weights":
        return _hits(name, numbers)
    return sum(numbers) if name in ADDED else values[0]


def _hits(name: str, numbers: Sequence[float]) -> float:
    """Counts of what was known are whole numbers. Blocks for each image, and shares of images, are averages."""
    counts = all(isinstance(n, int) for n in numbers) and not name.endswith("_blocks")
    return sum(numbers) if counts else float(f"{sum(numbers) / len(numbers):.5g}")


def _speed(answers: Sequence[Answered], name: str, counted: str, total: Total) -> float | None:
    """All that was computed, divided by the time of the slowest process, or of all rounds. None where a piece tells no
    speed."""
    pairs = [(len({*getattr(a.predictions, counted)}), a.cost.get(name)) for a in answers]
    times = [n / speed for n, speed in pairs if isinstance(speed, int | float) and speed]
    return float(f"{sum(n for n, _ in pairs) / total(times):.5g}") if len(times) == len(pairs) else None


def _mean(answers: Sequence[Answered], name: str) -> float | None:
    """The mean over the samples of all processes. None where a process does not tell its own."""
    pairs = [(len(a.predictions.id), a.cost.get(name)) for a in answers]
    sums = [n * value for n, value in pairs if isinstance(value, int | float)]
    return float(f"{sum(sums) / sum(n for n, _ in pairs):.7g}") if len(sums) == len(pairs) else None
