"""Settings of a task: what is in a key, what changes samples, what changes scores alone; and wrong ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from blip2sweep.errors import UserError, UserErrors
from blip2sweep.tasks import load_task
from blip2sweep.tasks.calibration import settings as split_settings
from blip2sweep.tasks.settings import settled, suffixes, task_settings
from tests.checkpoints import conf
from tests.toy.task import write
from tests.toy_rules import planned, toy_rules

__all__ = ["toy_rules"]
pytestmark = pytest.mark.usefixtures("toy_rules")


def section(root: Path, **more: Any) -> dict[str, Any]:
    """A composed section of the toy with rules."""
    base = {"name": "toy_rules", "kind": "toy_rules", "format": "toy_rules", "data_dir": str(root), "split": "test"}
    return {**base, "main_metric": "toy_right", **more}


def keys(folder: Path, *words: str) -> list[str]:
    return list(planned(folder, words).cells)


def test_scoring_settings_are_in_no_key_and_others_are(tmp_path: Path) -> None:
    plain = keys(tmp_path)
    assert plain == keys(tmp_path, "task.rule=color") == keys(tmp_path, "task.rule=[strict,color]")
    assert plain == keys(tmp_path, "task.lemmatize=stem", "task.rule=color")
    others = [keys(tmp_path, word) for word in ("task.k=5", "task.k=6", "task.ocr_tokens=true")]
    assert len({tuple(k) for k in (plain, *others)}) == 4


def test_a_setting_that_is_null_is_in_no_job(tmp_path: Path) -> None:
    cell = next(iter(planned(tmp_path).cells.values()))
    assert not {"rule", "k", "ocr_tokens", "annotations", "tokenizer"} & cell.job()["task"].keys()
    assert settled({"name": "a", "note": None, "rule": None, "k": 2}) == {"name": "a", "note": None, "k": 2}


def test_what_is_read_is_told_and_what_is_chosen_is_complete(tmp_path: Path) -> None:
    data = load_task(section(write(tmp_path), rule=["color", "strict", "color"], k=3, ocr_tokens="rosetta"))
    assert data.scoring == {"rule": ("color", "strict"), "lemmatize": ("none",)}
    assert data.settings == {"k": 3}
    assert [v.suffix for v in data.variants] == ["_color", ""]
    assert data.samples[0].details == {"ocr": ["rosetta"]}
    assert data.main_metric == "toy_right_color"
    assert data.columns["main_metric"] == "toy_right_color"
    assert load_task(section(tmp_path)).fingerprint != data.fingerprint
    assert load_task(section(tmp_path, rule="color", k=4)).fingerprint == load_task(section(tmp_path)).fingerprint


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    wrong = section(write(tmp_path), rule=["colour", "strict"], lemmatize=[], tokenizer="none", annotations="a", k=13)
    with pytest.raises(UserErrors) as told:
        load_task(wrong)
    assert told.value.lines == (
        "task.rule=colour: kind toy_rules does not score so; right: one or several of strict, color, such as "
        "task.rule=strict,color",
        "task.lemmatize=[]: no value; right: one or several of none, stem, such as task.lemmatize=none,stem",
        "task.tokenizer=none: kind toy_rules and format toy_rules have rule, lemmatize, k, ocr_tokens, images; right: "
        "task.tokenizer=null",
        "task.annotations=a: kind toy_rules and format toy_rules have rule, lemmatize, k, ocr_tokens, images; right: "
        "task.annotations=null",
        "task.k=13: unlucky; right: another number",
    )


def test_one_mistake_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^task\.k=5: kind caption and format coco have .*; right: task\.k=null$"):
        task_settings({**conf("task/shapes_caption"), "k": 5})


def test_suffixes_of_a_section(tmp_path: Path) -> None:
    assert suffixes(section(tmp_path)) == [""]
    assert suffixes(section(tmp_path, rule=["color", "strict"], lemmatize="stem")) == ["_color_stem", "_stem"]
    assert suffixes({"kind": "no such kind", "name": "old"}) == [""]  # a pack of an earlier version


def test_calibration_takes_no_setting_of_another_task(tmp_path: Path) -> None:
    """Its own files, of another format, have their own names; of the same task only `annotations` of each split."""
    task = {**section(tmp_path, rule="color", ocr_tokens=True, annotations="a.json"), "train_split": "train"}
    own = {"name": "coco", "kind": "caption", "format": "coco", "data_dir": "d", "split": "s"}
    assert not {"rule", "ocr_tokens", "annotations"} & split_settings(own, task).keys()
    same = split_settings({"name": "task"}, task)
    assert same["ocr_tokens"] is True
    assert "annotations" not in same
    named = split_settings({"name": "task"}, {**task, "annotations": "{split}.json"})
    assert named["annotations"] == "{split}.json"


@pytest.mark.parametrize(("images", "kept"), [("val2014", False), ("pictures/val2014", False), ("pictures", True)])
def test_calibration_looks_for_the_pictures_of_its_own_split(tmp_path: Path, images: str, kept: bool) -> None:
    task = {**section(tmp_path), "split": "val2014", "images": images, "train_split": "train2014"}
    assert ("images" in split_settings({"name": "task"}, task)) is kept


def test_annotations_and_images_in_place_of_a_formats_own(tmp_path: Path) -> None:
    config = conf("task/shapes_vqa")
    from blip2sweep.files import local_path

    root, limit = local_path(config["data_dir"]), {"limit": 6}
    plain = load_task({**config, **limit})
    asked, answered = (f"annotations/v2_{n}.json" for n in (
        "OpenEnded_mscoco_{split}_questions", "mscoco_{split}_annotations"))  # fmt: skip
    named = load_task({**config, **limit, "annotations": [asked, answered], "images": config["split"]})
    assert named.fingerprint == plain.fingerprint
    absolute = load_task(
        {**conf("task/shapes_caption"), **limit, "annotations": str(root / "annotations/captions_val2014.json")}
    )
    assert absolute.fingerprint == load_task({**conf("task/shapes_caption"), **limit}).fingerprint


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"annotations": "../x.json"}, r"task\.annotations=\.\./x\.json: outside of the data folder; right: "),
        ({"annotations": "x.json"}, r"task\.annotations=x\.json: no such file x\.json in task\.data_dir"),
        ({"annotations": ["a", "b"]}, r"task\.annotations=.*: 2 files; right: 1 for this format"),
        ({"annotations": 5}, r"task\.annotations=5: no name; right: "),
        ({"images": "/elsewhere"}, r"task\.images=/elsewhere: outside of the data folder; right: "),
        ({"images": "nowhere"}, r"no such image \(4 of 4 named by "),
    ],
)  # fmt: skip
def test_files_that_cannot_be_meant(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        load_task({**conf("task/shapes_caption"), "limit": 4, **settings})
