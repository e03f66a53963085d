"""Images and questions that are called by texts: evaluated, shared, scored, reported and held apart like those with numbers."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blip2sweep.backends.torch.sharing import ids_as_tensor, ids_of_tensor
from blip2sweep.errors import UserError
from blip2sweep.metrics import weights
from blip2sweep.reporting.html import build_report
from blip2sweep.reporting.source import load_source
from blip2sweep.reporting.worst import worst_samples
from blip2sweep.results.predictions import read_predictions
from blip2sweep.tasks import load_task
from blip2sweep.tasks.calibration import choose
from blip2sweep.tasks.disjoint import check_disjoint, check_other_pictures
from blip2sweep.tasks.scenes import write_split
from tests.checkpoints import conf
from tests.in_process import jobs, run
from tests.synthetic import build, whole

QUESTIONS, ANSWERS = "v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"


def named(root: Path, n: int = 6, split: str = "val2014", seed: int = 1, prefix: str = "img ") -> Path:
    """Scenes whose images and questions are called by texts, as Flickr30k, GQA and TextVQA do."""
    write_split(root, split, n, seed=seed)
    files = {
        name: root / "annotations" / name.replace("val2014", split)
        for name in ("captions_val2014.json", QUESTIONS, ANSWERS)
    }

    def edit(name: str, **make: Callable[[Any], str]) -> None:
        content = json.loads(files[name].read_text())
        for row in (row for rows in content.values() if isinstance(rows, list) for row in rows):
            row.update(
                {
                    field: f(row[field])
                    for field, f in make.items()
                    if field in row and (field != "id" or "file_name" in row)
                }
            )
        files[name].write_text(json.dumps(content))

    image, question = (lambda i: f"{prefix}{i}"), (lambda i: f"q<{i}>")
    edit("captions_val2014.json", id=image, image_id=image, file_name=lambda f: f"{prefix}{int(f[-16:-4])}.jpg")
    edit(QUESTIONS, image_id=image, question_id=question)
    edit(ANSWERS, image_id=image, question_id=question)
    for path in list((root / split).iterdir()):
        path.rename(path.with_name(f"{prefix}{int(path.name[-16:-4])}.jpg"))
    return root


def plain(root: Path) -> Path:
    write_split(root, "val2014", 6, seed=1)
    return root


def task(root: Path, kind: str = "caption", **fields: Any) -> Any:
    return load_task({**conf(f"task/shapes_{kind}"), "data_dir": str(root), **fields})


def test_they_are_samples_like_others(tmp_path: Path) -> None:
    texts, numbers = named(tmp_path / "texts"), plain(tmp_path / "numbers")
    for kind in ("caption", "vqa"):
        a, b = task(texts, kind), task(numbers, kind)
        assert [(s.question, s.references) for s in a.samples] == [(s.question, s.references) for s in b.samples]
        assert list(a.images) == [f"img {i}" for i in range(1, 7)]
        assert [s.id for s in a.samples][:2] == (["img 1", "img 2"] if kind == "caption" else ["q<1000>", "q<1001>"])
    other = named(tmp_path / "other", prefix="pic ")
    assert task(other).fingerprint != task(texts).fingerprint


@pytest.mark.thorough
def test_a_cell_says_the_same_and_its_features_come_back_from_disk(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    texts, numbers = named(tmp_path / "texts"), plain(tmp_path / "numbers")
    settings = {"cache": "disk", "cache_dir": str(tmp_path / "cache")}
    for kind in ("caption", "vqa"):
        words = [f"task=shapes_{kind}", "part=none"]
        (ours,) = run(jobs(*words, f"task.data_dir={texts}"), **settings).values()
        (theirs,) = run(jobs(*words, f"task.data_dir={numbers}")).values()
        assert ours[0].text == theirs[0].text
        assert ours[0].image_id[:2] == (["img 1", "img 2"] if kind == "caption" else ["img 1", "img 1"])
        (again,) = run(jobs("part=llm", "quant.bits=3", words[0], f"task.data_dir={texts}")[-1:], **settings).values()
        assert again[1]["cost"]["hits_disk"] == 1
        assert again[0].id == ours[0].id


@pytest.mark.parametrize("ids", [(), (3, 2**63 - 1, -5), ("a", "ü <b>", "7")])
def test_ids_are_kept_beside_features(ids: tuple[Any, ...]) -> None:
    assert ids_of_tensor(ids_as_tensor(ids)) == ids


def test_the_page_and_the_table_for_wandb_show_them(tmp_path: Path) -> None:
    hostile = [f"<img src=x onerror=alert({i})>" for i in range(40)]
    build(tmp_path, [whole(["vit"], b) for b in (8, 4, 2)], n=40, ids=hostile)
    source = load_source(tmp_path, "planted")
    worst = worst_samples(source)
    assert set(worst["image_id"]) <= set(hostile)
    assert len(worst)
    build_report(source, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "onerror=alert" not in page
    packed = re.search(r'id="packed-captions"[^>]*>([^<]+)<', page)
    assert packed is not None
    shown = json.loads(gzip.decompress(base64.b64decode(packed[1].strip().strip('"'))))
    assert [s["image"] for s in shown["samples"]] == hostile


def test_they_are_resampled_and_halved_by_image(tmp_path: Path) -> None:
    drawn = weights(["b", "a", "b", "c"])
    assert (drawn.dense()[:, 0] == drawn.dense()[:, 2]).all()
    build(tmp_path, [whole(["vit"], 2)], n=40, ids=[f"i{i}" for i in range(40)])
    draws = load_source(tmp_path, "planted").draws
    assert draws is not None
    first = draws.half(True)
    assert first.sum() == 20
    assert (first != draws.half(False)).all()
    assert np.isfinite(draws.drop(next(k for k in draws.arrays if k != draws.baseline))).all()
    assert isinstance(read_predictions(tmp_path, next((tmp_path / "predictions").iterdir()).stem).image_id[0], str)


def test_calibration_may_not_see_their_images_whatever_they_are_called(tmp_path: Path) -> None:
    """Ids and names say nothing of a picture: those that were drawn are held against those that are evaluated by content."""
    root = named(tmp_path / "texts")
    config = {**conf("task/shapes_caption"), "data_dir": str(root)}
    evaluated = task(root)
    renamed = replace(evaluated, samples=tuple(replace(s, id=i, image_id=i) for i, s in enumerate(evaluated.samples)))
    with pytest.raises(UserError, match="6 of its images are evaluated"):
        check_disjoint(evaluated, {**config, "split": "train"}, evaluated, config)
    other = task(named(tmp_path / "other", prefix="pic "))
    for split in (renamed, other):
        check_disjoint(split, {**config, "split": "train"}, evaluated, config)
        with pytest.raises(UserError, match=r"calibration\.split=train: 6 of its images are evaluated"):
            check_other_pictures(split, "train", evaluated)
    for sample in other.samples:
        sample.image.write_bytes(sample.image.read_bytes() + b" ")
    check_other_pictures(other, "train", evaluated)


def test_equal_names_in_two_folders_are_other_pictures(tmp_path: Path) -> None:
    roots = [named(tmp_path / folder) for folder in ("mine", "yours")]
    mine, yours = (task(root) for root in roots)
    for sample in yours.samples:
        sample.image.write_bytes(sample.image.read_bytes() + b" ")
    configs = [{**conf("task/shapes_caption"), "data_dir": str(root), "split": "train"} for root in roots]
    check_disjoint(yours, configs[1], mine, configs[0])


@pytest.mark.parametrize(
    ("image_id", "file"), [("a1", "a1.jpg"), ("a1.PNG", "a1.PNG"), ("42", "42.jpg"), ("in/a.b", "in/a.b.jpg")]
)
def test_a_text_names_the_image_of_a_question(tmp_path: Path, image_id: str, file: str) -> None:
    root = tmp_path
    (root / "annotations").mkdir()
    (root / "val2014" / file).parent.mkdir(parents=True)
    (root / "val2014" / file).touch()
    asked = {"questions": [{"question_id": "q", "image_id": image_id, "question": "what?"}]}
    (root / "annotations" / QUESTIONS).write_text(json.dumps(asked))
    (root / "annotations" / ANSWERS).write_text(json.dumps({"annotations": [{"question_id": "q", "answers": ["a"]}]}))
    assert task(root, "vqa").samples[0].image == root / "val2014" / file


def test_images_in_folders_of_their_own_are_drawn_for_calibration(tmp_path: Path) -> None:
    data = task(named(tmp_path / "texts"))
    deeper = [replace(s, image=s.image.parent / f"{i % 2}" / s.image.name) for i, s in enumerate(data.samples)]
    for samples in (deeper, [*data.samples[:3], *deeper[3:]], data.samples):
        assert len(choose(replace(data, samples=tuple(samples)), 4, 0).samples) == 4
