"""A picture is read once for all its questions: texts are equal, likelihoods agree, and fewer tokens are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from blip2sweep.backends.torch.batching import Batches
from blip2sweep.backends.torch.evaluate import Evaluation, evaluate
from blip2sweep.models import pieces
from blip2sweep.models.load import Loaded, load
from blip2sweep.models.opt import Opt, Prefix
from blip2sweep.tasks import Generation, TaskData, load_task
from tests.checkpoints import TINY, conf, t5_config, tiny_config, write_t5

VQA = Generation("Question: {} Answer:", 1, 10)
BEAMS = Generation("Question: {} Answer:", 3, 8, None, -1.0)
OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def opt() -> Loaded:
    return load(tiny_config(), TINY)


@pytest.fixture(scope="module")
def data() -> TaskData:
    """Questions of different lengths, three for each of ten pictures, and one for the last."""
    found = load_task({**conf("task/shapes_vqa"), "limit": 31})
    longer = [replace(s, question="Well, " * (i % 3) + (s.question or "")) for i, s in enumerate(found.samples)]
    return replace(found, samples=tuple(longer))


@pytest.fixture(scope="module")
def pictures(opt: Loaded, data: TaskData) -> Any:
    return evaluate(opt, data, VQA).features


def check_same(found: Evaluation, expected: Evaluation) -> None:
    for a, b in zip(found.records, expected.records, strict=True):
        assert {**a, "nll_sum": None} == {**b, "nll_sum": None}
        assert a["nll_sum"] == pytest.approx(b["nll_sum"], rel=1e-5, abs=1e-5)
    assert len({r["text"] for r in found.records}) > 2


@pytest.mark.parametrize("generation", [VQA, BEAMS, replace(BEAMS, repetition_penalty=2.0)])
@pytest.mark.parametrize("size", [None, 7])
def test_answers_are_those_of_pictures_read_anew(
    opt: Loaded, data: TaskData, pictures: Any, generation: Generation, size: int | None
) -> None:
    expected = evaluate(opt, data, generation, features=pictures, batch_size=size, anew=True)
    check_same(evaluate(opt, data, generation, features=pictures, batch_size=size), expected)


def test_a_picture_is_read_once(opt: Loaded, data: TaskData, pictures: Any) -> None:
    """12 tokens of a picture and 3 that all prompts begin with, for 11 pictures; then what differs of 31 questions."""
    tokens: list[int] = []
    block = opt.model.language_model.model.decoder.layers[0]
    hook = block.register_forward_pre_hook(lambda _, args: tokens.append(args[0].shape[:2].numel()))
    try:
        evaluate(opt, data, VQA, features=pictures, nll_references=0, batch_size=1, anew=True)
        before = sum(tokens)
        tokens.clear()
        evaluate(opt, data, VQA, features=pictures, nll_references=0, batch_size=1)
    finally:
        hook.remove()
    common = 3  # BOS, Question and the colon
    assert before - sum(tokens) == (31 - 11) * (12 + common)


def test_several_references_are_scored_from_there(
    opt: Loaded, data: TaskData, pictures: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "ROWS", 4)
    found = evaluate(opt, data, VQA, features=pictures, nll_references=3)
    monkeypatch.setattr(pieces, "ROWS", 128)
    check_same(found, evaluate(opt, data, VQA, features=pictures, nll_references=3, anew=True))


@pytest.mark.parametrize(("owner", "step", "limit", "halvings"), [(Opt, "prefix", 3, 2), (Prefix, "prefill", 5, 1)])
def test_the_batch_is_halved_when_memory_runs_out(
    opt: Loaded, data: TaskData, pictures: Any, owner: type, step: str, limit: int, halvings: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    expected = evaluate(opt, data, VQA, features=pictures)
    monkeypatch.setattr(owner, step, failing(getattr(owner, step), limit))
    found = evaluate(opt, data, VQA, features=pictures, batch_size=10)
    check_same(found, expected)
    assert found.cost["oom_halvings"] == halvings
    assert found.cost["sequence_batch_size"] == 10 // 2**halvings


def test_a_batch_in_a_batch_gives_back_what_it_went_down_in_vain() -> None:
    """Pictures are kept while their questions run: room for 12, a picture takes 2 of it, a question 1."""
    batches, done = Batches(8), []

    def pictures(piece: slice) -> int:
        count = piece.stop - piece.start

        def questions(own: slice) -> int:
            if 2 * count + own.stop - own.start > 12:
                raise OUT_OF_MEMORY
            return own.stop - own.start

        done.append(sum(batches.run(3 * count, questions)))
        return count

    assert sum(batches.run(16, pictures)) == 16
    assert sum(done) == 48
    assert batches.size == 4


def test_out_of_memory_at_one_question_propagates(
    opt: Loaded, data: TaskData, pictures: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Prefix, "prefill", failing(Prefix.prefill, 0))
    with pytest.raises(torch.OutOfMemoryError):
        evaluate(opt, data, VQA, features=pictures)


def failing(real: Callable[..., Any], above: int) -> Callable[..., Any]:
    """`real`, out of memory for more than `above` rows."""

    def step(self: Any, rows: Any, *rest: Any) -> Any:
        if len(rows) > above:
            raise OUT_OF_MEMORY
        return real(self, rows, *rest)

    return step


def test_an_encoder_reads_each_question_with_its_picture(
    tmp_path: Path, data: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T5's attends in both directions, so nothing is shared. Its references are read in pieces too."""
    t5, few = load(t5_config(), write_t5(tmp_path)), replace(data, samples=data.samples[:9])
    expected = evaluate(t5, few, VQA)
    monkeypatch.setattr(pieces, "ROWS", 2)
    check_same(evaluate(t5, few, VQA), expected)
    assert not hasattr(t5.language, "shares")


def test_prompts_without_a_token_are_read_with_their_pictures(opt: Loaded, pictures: Any) -> None:
    assert opt.language.prefix(pictures.rows.take([0]), [0, 0], [[2], []]) is None  # type: ignore[attr-defined]
