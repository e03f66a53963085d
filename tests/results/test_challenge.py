"""Answers as the servers of challenges read them; and cells of a split without answers."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from blip2sweep.cli import app
from blip2sweep.errors import UserError
from blip2sweep.results.challenge import submission
from blip2sweep.results.scoring import Scorer
from blip2sweep.tasks import load_task, planned_task
from blip2sweep.tasks.calibration import calibration
from blip2sweep.tasks.predictions import Predictions
from scripts.miniatures import write
from tests.checkpoints import conf
from tests.in_process import jobs, run

FULL = "annotations/v2_OpenEnded_mscoco_test2015_questions.json"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    write(folder, ("vizwiz", "vqav2"))
    return folder


def section(data: Path, name: str, **fields: Any) -> Any:
    return {**conf(f"task/{name}"), "data_dir": str(data / name), **fields}


def said(task: Any, drop: int = 0) -> Predictions:
    """Answers to all samples but the first `drop`."""
    own = load_task(task).samples[drop:]
    return Predictions([s.id for s in own], [s.image_id for s in own], [f"The {i}." for i in range(len(own))])


def test_the_form_of_vqav2(data: Path) -> None:
    task = section(data, "vqav2", split="test-dev2015")
    made = submission(task, said(task, drop=2), "vqav2", fill=data / "vqav2" / FULL)
    asked = [q["question_id"] for q in json.loads((data / "vqav2" / FULL).read_text())["questions"]]
    assert [row["question_id"] for row in made.rows] == asked
    assert [row["answer"] for row in made.rows] == ["", "", "The 0.", "The 1.", "The 2.", "The 3.", *[""] * 6]
    assert (made.missing, made.added) == (2, 6)
    assert [r["answer"] for r in submission(task, said(task), "vqav2", "evalai").rows] == list("012345")


def test_the_form_of_vizwiz(data: Path) -> None:
    task = section(data, "vizwiz", split="test")
    rows = submission(task, said(task), "vizwiz").rows
    assert rows == [{"image": f"VizWiz_test_{k:08d}.jpg", "answer": f"The {k}."} for k in range(4)]


@pytest.mark.parametrize(
    ("name", "options", "word"),
    [
        ("vqav2", {"form": "coco"}, "--form coco: unknown"),
        ("vqav2", {"form": "vqav2", "processor": "lavis"}, "--processor lavis: unknown"),
        ("vizwiz", {"form": "vqav2"}, "question id 'VizWiz_val_00000000.jpg' is a text"),
        ("vizwiz", {"form": "vizwiz", "fill": Path("any")}, "only --form vqav2 has questions of other splits"),
        ("vqav2", {"form": "vqav2", "fill": Path("nowhere.json")}, "nowhere.json: cannot be read"),
    ],
)
def test_what_is_refused(data: Path, name: str, options: Any, word: str) -> None:
    task = section(data, name)
    with pytest.raises(UserError) as caught:
        submission(task, said(task), **options)
    assert word in str(caught.value)


@pytest.mark.parametrize("kind", ["incontext", "caption"])
def test_outputs_that_are_no_answers_are_refused(data: Path, kind: str) -> None:
    task = section(data, "vqav2")
    with pytest.raises(UserError, match=f"of kind {kind}, are no answers .*right: a cell of kind vqa"):
        submission({**task, "kind": kind}, said(task), "vqav2")


def test_a_question_file_of_something_else_is_refused(data: Path) -> None:
    task = section(data, "vqav2")
    with pytest.raises(UserError, match="has none of the task's questions"):
        submission(task, said(task), "vqav2", fill=data / "vqav2" / FULL)


def test_a_cell_without_answers_runs_and_has_no_accuracy(data: Path) -> None:
    words = f"task=vqav2 task.data_dir={data / 'vqav2'} task.split=test2015 part=none"
    (job,) = jobs(*shlex.split(words), limit=4)
    predictions, _ = run([job])[job["key"]]
    assert all(predictions.text or ())
    assert predictions.nll_sum == [None] * 4
    assert set(Scorer(planned_task(job["task"])).statistics(predictions)) == {"health"}
    assert "main_metric" not in job["columns"]


def test_calibration_on_questions_without_answers_is_refused(data: Path) -> None:
    task = section(data, "vqav2", split="test2015")
    config = {**conf("calibration/task"), "n_samples": 2}
    with pytest.raises(UserError, match="vqav2 test2015 has no answers"):
        calibration(config, load_task(task), task, conf("generation/greedy"), "opt")


def test_a_key_that_no_cell_has(tmp_path: Path) -> None:
    (tmp_path / "journals").mkdir()
    done = CliRunner().invoke(app, ["answers", "abc", "--output-dir", str(tmp_path)])
    assert "no cells with outputs have such a key" in str(done.exception)


def test_arrays_of_unscored_cells_hold_health_alone(data: Path) -> None:
    task = load_task(section(data, "vqav2", split="test-dev2015"))
    statistics = Scorer(task).statistics(said(section(data, "vqav2", split="test-dev2015")))
    assert {name: array.shape for name, array in statistics.items()} == {"health": (6, 3)}
    assert np.isfinite(statistics["health"]).all()
