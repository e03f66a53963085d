"""What was asked of each sample: the columns of samples.parquet that its task gives."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from blip2sweep.canonical import canonical_json
from blip2sweep.errors import UserError
from blip2sweep.files import local_path
from blip2sweep.results.planned import planned_tasks
from blip2sweep.rows import Id
from blip2sweep.tasks import planned_task
from blip2sweep.tasks.sample import Sample
from blip2sweep.wire.pack import TaskJob

FIELDS = pa.schema([("question", pa.string()), ("references", pa.list_(pa.string())), ("file_name", pa.string())])


class Questions:
    """The questions, references and names of pictures of one task, made once for all of its cells.

    root: its data folder, which names of pictures are relative to. References are null where the task has none.
    """

    def __init__(self, samples: Sequence[Sample], root: Path) -> None:
        self._places = {s.id: i for i, s in enumerate(samples)}
        columns = {
            "question": [s.question for s in samples],
            "references": [list(s.references) or None for s in samples],
            "file_name": [_file_name(s.image, root) for s in samples],
        }
        self._table = pa.table(columns, schema=FIELDS)

    def of(self, ids: Sequence[Id]) -> pa.Table:
        """The columns FIELDS for these samples, in their order; null for one that the task has not."""
        return self._table.take(pa.array([self._places.get(i) for i in ids], pa.int64()))


def _file_name(image: Path, root: Path) -> str:
    return image.relative_to(root).as_posix() if image.is_relative_to(root) else image.name


def questions_of(task: TaskJob, samples: Sequence[Sample]) -> Questions:
    """The questions of a job's task, whose samples are read already."""
    return Questions(samples, local_path(str(task.get("data_dir"))))


class PlannedQuestions:
    """The questions of cells that a folder's packs name, each task read once, and nothing before it is asked for."""

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        self._known: dict[str, Questions | None] = {}

    @cached_property
    def _tasks(self) -> dict[str, TaskJob]:
        return planned_tasks(self.output_dir)

    def __call__(self, key: str) -> Questions | None:
        """None where no pack has the cell, and where its task cannot be read here, or needs code from outside: making a
        table never runs the code of another user."""
        task = self._tasks.get(key)
        if task is None or task.get("planned", {}).get("outside"):
            return None
        name = canonical_json(task)
        if name not in self._known:
            self._known[name] = None
            with suppress(UserError):
                self._known[name] = questions_of(task, planned_task(task).samples)
        return self._known[name]
