"""The embedded retrieval model: what ships is what was trained, and finds its captions; training repeats."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import BlipProcessor

from blip2sweep.metrics import METRICS
from blip2sweep.results.scoring import Scorer
from blip2sweep.tasks import planned_task
from scripts.tiny.ship import sha256
from scripts.tiny_itm.model import make_model, make_processor
from scripts.tiny_itm.ship import save
from scripts.tiny_itm.training import Data, Spec, train
from tests.checkpoints import ROOT, TINY
from tests.in_process import jobs, run

FOLDER = ROOT / "blip2sweep" / "assets" / "tiny-itm"
SPEC = Spec(steps=2, n_scenes=12, batch=6, read=3)


@pytest.fixture(scope="module")
def processor() -> BlipProcessor:
    torch.set_num_threads(1)
    return make_processor()


def trained(folder: Path, processor: BlipProcessor) -> str:
    folder.mkdir()
    torch.manual_seed(SPEC.seed)
    model = make_model(TINY, processor)
    train(model, Data(model, processor, SPEC), SPEC, folder / "log.jsonl")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return sha256(folder / "model.safetensors")


@pytest.mark.thorough
def test_training_repeats_bit_for_bit(processor: BlipProcessor, tmp_path: Path) -> None:
    assert trained(tmp_path / "once", processor) == trained(tmp_path / "again", processor)
    save(tmp_path / "once", tmp_path / "shipped")
    names = {p.name for p in (tmp_path / "shipped").iterdir()}
    assert names | {"README.md"} == {p.name for p in FOLDER.iterdir()}
    assert (tmp_path / "shipped/model.safetensors").stat().st_mode & 0o777 == 0o644


def test_what_ships_is_what_was_written(processor: BlipProcessor) -> None:
    lines = (FOLDER / "SHA256SUMS").read_text().splitlines()
    assert {name: digest for digest, name in (line.split("  ") for line in lines)} == {
        p.name: sha256(p) for p in FOLDER.iterdir() if p.name not in ("README.md", "SHA256SUMS")
    }
    assert sum(p.stat().st_size for p in FOLDER.iterdir()) < 1_600_000
    assert processor.tokenizer.get_vocab() == BlipProcessor.from_pretrained(FOLDER).tokenizer.get_vocab()


@pytest.mark.thorough
def test_it_finds_captions_and_two_bits_cost_it() -> None:
    """40 pictures and 200 captions: by chance 1 in 40 captions of a picture comes first, and 1 picture in 40."""
    made = jobs("model=tiny-itm", "task=shapes_retrieval", "task.k=8", "part=none,all", "quant.bits=2", limit=40)
    told = {key: answer[0] for key, answer in run(made).items()}
    found = {}
    for job in made:
        rows = Scorer(planned_task(job["task"])).statistics(told[job["key"]])["recall"]
        found[job["columns"]["part"]] = {n: METRICS[n].value(rows) for n in ("tr_at_1", "ir_at_1", "recall_mean")}
    assert min(found["none"]["tr_at_1"], found["none"]["ir_at_1"]) > 0.2
    assert found["all"]["recall_mean"] < 0.6 * found["none"]["recall_mean"]
