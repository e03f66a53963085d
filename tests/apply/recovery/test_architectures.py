"""Every architecture that writes texts can be trained: gradients go through its own stages, and nowhere else."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from blip2sweep.apply.recovery.learner import Learner
from blip2sweep.apply.recovery.lessons import Pictures, Texts, pixels_of, untrained
from blip2sweep.apply.recovery.loss import likelihood, of_batch
from blip2sweep.backends.torch.evaluate import evaluate
from blip2sweep.errors import UserError
from blip2sweep.models.images import Features
from blip2sweep.models.load import Loaded, load
from blip2sweep.tasks.generation import Generation
from blip2sweep.tasks.training import Training
from tests.apply.recovery.made import paths_of, recovery, same, samples, state, trained
from tests.models.image_text.made import FIRST
from tests.params import quick
from tests.ragged_pictures import scenes
from tests.small_models import RETRIEVAL, small

WRITING = (
    "blip2-opt-2.7b", "blip2-flan-t5-xl", "instructblip-vicuna-7b", "instructblip-flan-t5-xl",
    "blip-image-captioning-base", "blip-vqa-base", *FIRST,
)  # fmt: skip
QUICK = ("blip2-opt-2.7b",)


def small_model(name: str, folder: Path) -> Loaded:
    section, write = small(name)
    write(folder)
    return load(section, folder)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes(tmp_path_factory.mktemp("scenes"))


@pytest.mark.parametrize("name", quick(WRITING, *QUICK))
def test_gradients_go_through_the_products_own_forward(name: str, pictures: Path, tmp_path: Path) -> None:
    loaded = small_model(name, tmp_path)
    training = samples(n=4, data_dir=pictures, prompt="a" if name.startswith("blip-vqa") else "")
    before, pixels = state(loaded), pixels_of(loaded, training)
    _check_likelihood(loaded, training, pixels)  # first: what inference leaves is in the way of no gradient
    for part in loaded.anatomy.parts:
        _check_gradients(loaded, training, pixels, paths_of(loaded, part))
    outcome = trained(loaded, recovery(steps=2, batch_size=2, rank=2), paths_of(loaded), training, pixels=pixels)
    assert list(outcome.losses) == [0, 1, 2]
    assert all(math.isfinite(x) for x in outcome.losses.values())
    assert outcome.trained.keys() == set(paths_of(loaded))
    assert same(state(loaded), before)


def _check_likelihood(loaded: Loaded, training: Training, pixels: Features) -> None:
    """What the loss is made of is the likelihood that cells are scored by, sample for sample."""
    found = evaluate(loaded, training.data, Generation(training.prompt, 1, 1), nll_references=1000)
    texts, seen = Texts(loaded, training), Pictures(loaded, pixels, 1)
    for i, record in enumerate(found.records):
        own = [k for k, row in enumerate(training.rows) if row.sample == i]
        if own:
            read = texts.learnt.picked(own)
            assert likelihood(seen.logits, read) == pytest.approx(record["nll_sum"], rel=1e-5)
            assert len(read.labels) == record["nll_tokens"]


def _check_gradients(loaded: Loaded, training: Training, pixels: Features, paths: tuple[str, ...]) -> None:
    """Every adapter of the target has a gradient, and nothing else."""
    spec, read = recovery(rank=2), Texts(loaded, training).learnt.picked(range(2))
    with Learner(loaded.model, paths, spec) as learner:
        seen = Pictures(loaded, pixels, untrained(loaded, paths))
        of_batch(spec, seen.logits, None, read, len(read.labels)).backward()
        having = {id(p) for p in loaded.model.parameters() if p.grad is not None}
        assert having == {id(x) for x in learner.tensors}
        # `b` is zero at first, so the gradients of `a` are too.
        assert all(bool(x.grad is not None and x.grad.abs().sum() > 0) for x in learner.tensors[1::2])


def test_a_model_that_writes_nothing_is_refused(pictures: Path, tmp_path: Path) -> None:
    loaded = small_model(RETRIEVAL, tmp_path)
    with pytest.raises(
        UserError, match=r"recover: .* scores pictures against texts and writes none; right: recover=none"
    ):
        trained(loaded, recovery(), paths_of(loaded), samples(n=8, data_dir=pictures))
