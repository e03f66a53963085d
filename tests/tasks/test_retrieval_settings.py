"""Retrieval: its settings and keys, what is refused, and files that do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.backends.dummy import Dummy
from blip2sweep.errors import UserError
from blip2sweep.models.load import Loaded
from blip2sweep.planning.cell_builder import CellBuilder
from blip2sweep.planning.processes import check_divisible
from blip2sweep.tasks import planned_task
from scripts.miniatures import write
from tests.composing import jobs as composed
from tests.tasks.test_retrieval_task import answered, folder, loaded, recalls, task

__all__ = ["folder", "loaded"]  # fixtures


def cells(folder: Path, *words: str) -> list[Any]:
    given = ("model=tiny-itm", "task=flickr30k_retrieval", f"task.data_dir={folder / 'flickr30k_retrieval'}", *words)
    return [CellBuilder()(job.config) for job in composed(*given)]


def test_k_is_part_of_the_key_and_generation_is_not(folder: Path) -> None:
    keys = [cell.key for cell in cells(folder, "task.k=4,5", "task.limit=6", "part=none")]
    assert len(set(keys)) == 2
    words = ("task.k=4", "task.limit=6", "part=none", "generation=paper")
    assert [cell.key for cell in cells(folder, *words)] == keys[:1]


def test_a_k_beyond_what_there_is_is_one_key(folder: Path) -> None:
    keys = [cell.key for cell in cells(folder, "task.k=30,31,500", "task.limit=6", "part=none")]
    assert len(set(keys)) == 1


@pytest.mark.parametrize("k", ["0", "-1", "null"])
def test_k_is_a_positive_integer(folder: Path, k: str) -> None:
    with pytest.raises(UserError, match=f"task.k={k.replace('null', 'None')}: right: a positive integer, such as 128"):
        cells(folder, f"task.k={k}")


def test_a_model_without_matching_is_refused_when_planned(folder: Path) -> None:
    with pytest.raises(UserError, match="requests match, and model tiny answers generate, likelihood, choose alone"):
        cells(folder, "model=tiny")


def test_processes_do_not_share_a_cell(folder: Path) -> None:
    with pytest.raises(UserError, match="compares every picture with every text; right: 1"):
        check_divisible(cells(folder, "task.limit=6"), 2)


def test_a_back_end_without_a_model_gives_the_same_columns(folder: Path) -> None:
    job = cells(folder, "task.limit=6", "task.k=4", "part=none")[0].job()
    said = Dummy({})(job).predictions
    assert tuple(said.columns) == ("id", "image_id", "texts", "scores", "asking", "asking_scores")
    assert all(0 <= x <= 1 for x in recalls(planned_task(job["task"]), said).values())


def test_more_than_there_are_is_all_of_them(folder: Path, loaded: Loaded) -> None:
    data = task(folder, limit=4)
    more = replace(data, settings={"k": 20}), replace(data, settings={"k": 999})
    assert len({answered(loaded, d).hash for d in more}) == 1


# ---- files that do not fit


def _without_sentences(images: list[dict[str, Any]]) -> None:
    for image in images:
        del image["sentences"]


def _twice(images: list[dict[str, Any]]) -> None:
    images[-1]["imgid"] = images[-2]["imgid"]


def _silent(images: list[dict[str, Any]]) -> None:
    images[-1]["sentences"] = []


def _missing(images: list[dict[str, Any]]) -> None:
    images[-1]["filename"] = "gone.jpg"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_without_sentences, "no image has 'sentences', so this is no Karpathy file"),
        (_twice, "imgid"),
        (_silent, "sentences"),
        (_missing, "gone.jpg: no such image .1 of 40"),
    ],
)
def test_files_that_do_not_fit(folder: Path, tmp_path: Path, change: Callable[..., None], told: str) -> None:
    write(tmp_path, ("flickr30k_retrieval",))
    path = tmp_path / "flickr30k_retrieval/dataset_flickr30k.json"
    data = json.loads(path.read_text())
    change(data["images"])
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match=told) as error:
        task(tmp_path, limit=None)
    assert len(str(error.value).splitlines()) == 1
