"""The embedded tiny LLaVA: what ships is what its script wrote, it answers, and training repeats bit for bit."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor

import blip2sweep
from scripts.tiny import loop, ship
from scripts.tiny.batches import Batch, BatchSpec
from scripts.tiny.evaluate import Split, vqa_accuracy
from scripts.tiny.loop import Settings, train
from scripts.tiny_llava import training
from scripts.tiny_llava.model import CAPTION_REQUEST, PROMPT, make_processor
from scripts.tiny_llava.rescale import rescale
from scripts.tiny_llava.runner import LlavaRunner
from scripts.tiny_llava.training import LlavaTrainer
from scripts.train_tiny_llava import KNOBS

ASSETS = Path(blip2sweep.__file__).parent / "assets"
FOLDER = ASSETS / "tiny-llava"
N = 8  # images
SPEC = BatchSpec(seed=0, steps=2, cell_steps=1, cell_batch=2, batch=2)


@pytest.fixture(scope="module")
def split() -> Split:
    """The first images of the shipped set with their questions."""
    found = Split(ASSETS / "shapes", "val2014")
    n_questions = int(np.searchsorted(found.rows, N))
    assert (np.diff(found.rows) >= 0).all()
    found.ids, found.files, found.rows = found.ids[:N], found.files[:N], found.rows[:n_questions]
    found.questions, found.answers = found.questions[:n_questions], found.answers[:n_questions]
    return found


@pytest.fixture(scope="module")
def model() -> LlavaForConditionalGeneration:
    return AutoModelForImageTextToText.from_pretrained(FOLDER, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def processor() -> LlavaProcessor:
    return AutoProcessor.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def answers(model: LlavaForConditionalGeneration, processor: LlavaProcessor, split: Split) -> list[str]:
    """One an image question, by the processor and `generate` alone."""
    images = [Image.open(split.files[row]).convert("RGB") for row in split.rows]
    prompts = [_rendered(processor, question) for question in split.questions]
    inputs = processor(images=images, text=prompts, padding=True, return_tensors="pt")
    ids = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    return [text.strip() for text in processor.batch_decode(ids[:, inputs.input_ids.shape[1] :], True)]


def _rendered(processor: LlavaProcessor, request: str) -> str:
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": request}]}
    text: str = processor.apply_chat_template([turn], add_generation_prompt=True)
    return text


def test_the_shipped_files_are_the_ones_that_training_wrote() -> None:
    lines = [line.split("  ") for line in (FOLDER / "SHA256SUMS").read_text().splitlines()]
    assert {name: ship.sha256(FOLDER / name) for _, name in lines} == {name: digest for digest, name in lines}
    assert {name for _, name in lines} | {"README.md", "SHA256SUMS"} == {file.name for file in FOLDER.iterdir()}


def test_the_log_and_the_card_speak_of_the_same_run() -> None:
    last = json.loads((FOLDER / "training.jsonl").read_text().splitlines()[-1])
    assert f"{last['step']} steps of 16 scenes" in (FOLDER / "README.md").read_text()


def test_its_chat_template_renders_what_it_was_trained_with(processor: LlavaProcessor) -> None:
    for request in (CAPTION_REQUEST, "How many red circles are there?"):
        assert _rendered(processor, request) == PROMPT.format(request)


@pytest.fixture(scope="module")
def made() -> LlavaProcessor:
    """Trained anew, on the words of the scenes."""
    return make_processor()


def test_the_shipped_processor_is_the_one_of_the_script(processor: LlavaProcessor, made: LlavaProcessor) -> None:
    assert made.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    assert made.chat_template == processor.chat_template


def test_it_answers(answers: list[str], split: Split) -> None:
    right = [vqa_accuracy(answer, given) for answer, given in zip(answers, split.answers, strict=True)]
    assert np.mean(right) > 0.8


def test_it_captions_what_is_there(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, split: Split
) -> None:
    captions = LlavaRunner(model, processor, split).run(LlavaRunner.parts).captions
    words = [set(caption.split()) for caption in captions]
    references = [set(" ".join(split.references[image_id]).split()) for image_id in split.ids]
    assert sum(caption <= reference for caption, reference in zip(words, references, strict=True)) > N // 2


def test_staged_answers_are_those_of_generate(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, split: Split, answers: list[str]
) -> None:
    assert LlavaRunner(model, processor, split).run(LlavaRunner.parts).answers == answers


def test_the_last_block_of_its_tower_reaches_nothing(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, split: Split
) -> None:
    runner = LlavaRunner(model, processor, split)
    before = runner.vision()
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    for block, reaches in ((-1, False), (-2, True)):
        with torch.no_grad():
            for parameter in runner.blocks("vision")[block].parameters():
                parameter.mul_(1.5)
        assert torch.equal(runner.vision(), before) is not reaches
        model.load_state_dict(kept)


def test_rescaling_leaves_the_function(processor: LlavaProcessor, split: Split) -> None:
    before, after = (LlavaRunner(ship.load(FOLDER)[0], processor, split) for _ in range(2))
    rescale(after, KNOBS, seed=7)
    shown = ship.proven(before, after)
    assert shown["same"] == shown["n"]
    assert max(shown["changes"]) < 1e-5
    pairs = zip(*(runner.model.model.language_model.parameters() for runner in (before, after)), strict=True)
    assert not any(torch.equal(a, b) for a, b in pairs if a.ndim > 1)


def _train(folder: Path, processor: LlavaProcessor, spec: BatchSpec = SPEC) -> str:
    train(LlavaTrainer(processor, spec, Settings(save_every=1)), processor, folder)
    return ship.sha256(folder / "model.safetensors")


def _train_until(step: int, folder: Path, processor: LlavaProcessor, spec: BatchSpec) -> str:
    """As `_train`, killed before `step`."""
    real = loop.batches

    def killed(*given: object) -> Iterator[tuple[int, Batch]]:
        yield from itertools.islice(real(*given), step)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "batches", killed)
        with pytest.raises(KeyboardInterrupt):
            _train(folder, processor, spec)
    return ship.sha256(folder / "model.safetensors")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, made: LlavaProcessor) -> str:
    return _train(tmp_path_factory.mktemp("once"), made)


def test_training_repeats_bit_for_bit(trained: str, made: LlavaProcessor, tmp_path: Path) -> None:
    assert _train(tmp_path / "again", made) == trained


def test_a_killed_training_ends_with_the_same_bytes(trained: str, made: LlavaProcessor, tmp_path: Path) -> None:
    assert _train_until(1, tmp_path, made, SPEC) != trained
    assert _train(tmp_path, made) == trained


@pytest.mark.thorough
def test_a_longer_training_is_the_same_run_until_it_cools(
    made: LlavaProcessor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped run was begun for 7000 steps, and continued from its 5000th for 6000."""
    monkeypatch.setattr(training, "COOL_STEPS", 2)
    short, long = (dataclasses.replace(SPEC, steps=steps, ramp=2) for steps in (4, 5))
    _train_until(3, tmp_path / "changed", made, long)
    assert _train(tmp_path / "changed", made, short) == _train(tmp_path / "short", made, short)


def test_what_ships_is_for_everyone_and_in_half_precision(
    processor: LlavaProcessor, split: Split, tmp_path: Path
) -> None:
    ship.save(LlavaRunner(ship.load(FOLDER)[0], processor, split), tmp_path, {"seed": 0})
    file = tmp_path / "model.safetensors"
    assert file.stat().st_mode & 0o777 == 0o644
    assert ship.sha256(file) == ship.sha256(FOLDER / "model.safetensors")
