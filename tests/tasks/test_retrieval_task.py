"""Retrieval on its miniature: from the files to the recalls, against the model's own forward and LAVIS's evaluation."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from blip2sweep.backends.torch.evaluate import evaluate
from blip2sweep.metrics import METRICS
from blip2sweep.models.load import Loaded, load
from blip2sweep.models.shipped import model_config
from blip2sweep.results.predictions import read_predictions, stem, write_predictions
from blip2sweep.results.scoring import Scorer
from blip2sweep.tasks import TaskData, load_task
from blip2sweep.tasks.generation import WRITES_NOTHING
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.tasks.retrieval import candidates, rankings, text_as_read
from scripts.miniatures import write
from tests.checkpoints import ROOT, conf
from tests.command_line import blip2sweep
from tests.metrics.test_recall import dense, kept, lavis

ITM = ROOT / "blip2sweep/assets/tiny-itm"
K = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write(folder, ("coco_retrieval", "flickr30k_retrieval"))
    return folder


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    torch.set_num_threads(1)
    return load(model_config("tiny-itm"), ITM)


def task(folder: Path, name: str = "flickr30k_retrieval", **more: Any) -> TaskData:
    own = {"k": K, "data_dir": str(folder / name), "limit": 10}
    return load_task({**conf(f"task/{name}"), **own, **more})


def answered(loaded: Loaded, data: TaskData, **settings: Any) -> Predictions:
    return Predictions.of(evaluate(loaded, data, WRITES_NOTHING, **settings).records)


def recalls(data: TaskData, said: Predictions) -> dict[str, float]:
    found = Scorer(data).statistics(said)
    assert set(found) == {"recall"}
    return {name: METRICS[name].value(found["recall"]) for name in data.rules.scores(data)}


@torch.inference_mode()
def whole(loaded: Loaded, data: TaskData, head: bool) -> np.ndarray:
    """(pictures, texts): the model's own forward, a picture with all texts at a time."""
    texts, rows = list(candidates(data)), []
    for sample in data.samples:
        image = Image.open(sample.image).convert("RGB")
        batch = loaded.processor(images=[image] * len(texts), text=texts, padding=True, return_tensors="pt")
        out = loaded.model(**batch, use_image_text_matching_head=head).logits_per_image
        rows.append(out[:, 1] if head else out[0])
    return torch.stack(rows).numpy()


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["flickr30k_retrieval", "coco_retrieval"])
def test_recalls_are_those_of_the_models_forward_ranked_as_lavis_does(folder: Path, loaded: Loaded, name: str) -> None:
    data = task(folder, name)
    similar = whole(loaded, data, False)
    scores = similar + whole(loaded, data, True)
    own = np.cumsum([0, *(len(s.references) for s in data.samples)])
    texts_of = [list(range(a, b)) for a, b in pairwise(own.tolist())]
    said = answered(loaded, data)
    for side, (columns, values) in enumerate((("texts", "scores"), ("asking", "asking_scores"))):
        for row, numbers in enumerate(getattr(said, columns)):
            wanted = scores[row, numbers]
            assert getattr(said, values)[row] == pytest.approx(wanted.tolist(), abs=1e-5), (side, row)
    asked, asking = kept(similar, K), kept(similar.T, K)
    told = lavis(
        dense(asked, scores), dense(asking, scores.T), texts_of, [i for i, t in enumerate(texts_of) for _ in t]
    )
    assert recalls(data, said) == pytest.approx(told)
    assert 0 < told["recall_mean"] < 1


def test_equal_captions_of_a_picture_count_each(folder: Path) -> None:
    data = task(folder, "coco_retrieval", limit=None)
    assert len(data.samples) == 40
    assert [len(s.references) for s in data.samples][-9:] == [6, 5, 5, 5, 5, 5, 5, 6, 7]
    assert len(candidates(data)) == 204


def test_the_batch_size_changes_no_recall(folder: Path, loaded: Loaded) -> None:
    data = task(folder)
    one, many = (answered(loaded, data, batch_size=n) for n in (3, 64))
    assert (one.texts, one.asking) == (many.texts, many.asking)
    assert np.allclose(one.scores, many.scores, rtol=0, atol=1e-5)
    assert recalls(data, one) == recalls(data, many)


def test_predictions_come_back_and_are_joined(folder: Path, loaded: Loaded, tmp_path: Path) -> None:
    data = task(folder)
    said = answered(loaded, data)
    name = stem("0" * 12, said.hash)
    write_predictions(tmp_path, name, said)
    assert read_predictions(tmp_path, name) == said
    parts = [Predictions(**{k: list(v[a:b]) for k, v in said.columns.items()}) for a, b in ((6, 10), (0, 6))]
    assert Predictions.joined(parts, [s.id for s in data.samples]) == said
    best = [max(zip(s, t, strict=True))[1] for s, t in zip(said.scores or (), said.texts or (), strict=True)]
    assert said.outputs == [str(i) for i in best]
    texts = [text for s in data.samples for text in s.references]
    assert [told.splitlines()[0][2:] for told in data.readable_outputs(said)] == [texts[i] for i in best]


def test_rankings_are_for_people(folder: Path, loaded: Loaded) -> None:
    data = task(folder)
    said, most = answered(loaded, data), 3
    each = Scorer(data).statistics(said)["recall"]
    for sample, found, row in zip(data.samples, rankings(data, said, most), each, strict=True):
        assert len(found.captions) == most
        assert found.captions[0][1] == bool(row[0])
        assert [text for text, _ in found.pictures] == list(sample.references)
        assert sum(pictures[:1] == (sample.id,) for _, pictures in found.pictures) == row[4]


def test_a_picture_that_cannot_be_read_asks_nothing(folder: Path, loaded: Loaded, tmp_path: Path) -> None:
    write(tmp_path, ("flickr30k_retrieval",))
    good = task(tmp_path)
    good.samples[3].image.write_bytes(b"no picture")
    data = task(tmp_path, on_bad_image="skip", k=50)
    said = answered(loaded, data, on_bad_image="skip")
    assert said.id == [s.id for i, s in enumerate(data.samples) if i != 3]
    assert {j for row in said.texts or () for j in row} & set(range(15, 20))  # its captions are still found
    assert Scorer(data).statistics(said)["recall"][:, [3, 7]].tolist() == [[1, 5]] * 9


def test_texts_are_read_as_lavis_reads_them() -> None:
    assert text_as_read('A "red" circle. (big); one: two!') == "a red circle big one two"
    assert text_as_read("word " * 60).split() == ["word"] * 50


# ---- from the command to the report


@pytest.mark.thorough
def test_the_documented_command_gives_a_table_and_a_report(folder: Path, tmp_path: Path) -> None:
    """The command of docs/tasks.md, with fewer pictures: quantization of each part, samples and page."""
    page = (ROOT / "docs/tasks.md").read_text()
    typed = next(line for line in page.splitlines() if line.startswith("blip2sweep -m task=flickr30k_retrieval"))
    words = [w.replace("data/", f"{folder}/") for w in typed.split()[1:]]
    ran = blip2sweep(*words, "task.limit=12", "sweep_name=found", cwd=tmp_path)
    assert ran.code == 0, ran.err
    table = pd.read_parquet(tmp_path / "outputs/sweeps/found/table.parquet").set_index(["part"])
    assert sorted(table.index) == ["none", "qformer", "vit"]
    assert (
        table[["recall_mean", "tr_at_1", "ir_at_10", "drop_recall_mean_low", "drop_ir_at_1_high"]]
        .notna()
        .all(axis=None)
    )
    samples = pd.read_parquet(tmp_path / "outputs/samples.parquet")
    assert {len(row) for row in samples["texts"]} == {len(row) for row in samples["scores"]} == {10}
    assert samples.groupby("key")["tr_at_1"].mean().sort_index().tolist() == pytest.approx(
        table.set_index("key")["tr_at_1"].sort_index().tolist()
    )
    assert "asking" not in samples
    made = blip2sweep("report", "found", cwd=tmp_path)
    assert made.code == 0, made.err
    assert "mean recall" in (tmp_path / "outputs/sweeps/found/report.html").read_text()
