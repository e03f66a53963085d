"""One training: the same bits whenever it is stopped, its losses, its choice of the step, and how it fails."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch

from blip2sweep.apply.patch import Patch
from blip2sweep.apply.recovery import progress, told
from blip2sweep.apply.recovery.kept import tensors
from blip2sweep.apply.recovery.learner import Learner, rate
from blip2sweep.apply.recovery.lessons import Pictures, Read, Texts, pixels_of
from blip2sweep.apply.recovery.loss import of_batch
from blip2sweep.apply.recovery.progress import Checkpoints
from blip2sweep.apply.recovery.teacher import teacher_of
from blip2sweep.apply.recovery.trainer import Trainer
from blip2sweep.compression.recover.adapters import Adapter, Tuned
from blip2sweep.machine.stopping import Stopped
from blip2sweep.models.images import Features
from blip2sweep.models.load import Loaded, load
from blip2sweep.tasks.training import Training
from tests.apply.recovery.made import asks, bits, fewer, paths_of, recovery, same, samples, state, trained
from tests.checkpoints import TINY, conf, recipe
from tests.params import quick

SAMPLES, EVERY = samples(), samples(holdout=0.0)


@pytest.fixture(scope="module")
def tiny() -> Loaded:
    return load(conf("model/tiny"), TINY)


@pytest.fixture(scope="module")
def pixels(tiny: Loaded) -> Features:
    return pixels_of(tiny, SAMPLES)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every step."""
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    monkeypatch.setattr(progress, "SHARE", 0)


@pytest.mark.parametrize(("method", "chosen"), quick([("lora", SAMPLES), ("lora", EVERY), ("full", EVERY)]))
def test_a_training_that_goes_on_makes_the_same_bits(
    method: str, chosen: Training, tiny: Loaded, pixels: Features, tmp_path: Path
) -> None:  # fmt: skip
    paths, spec, path = paths_of(tiny, "qformer"), recovery(method), tmp_path / "c.safetensors"
    whole = trained(tiny, spec, paths, chosen, pixels=pixels)
    torch.manual_seed(5)  # nothing outside decides anything
    torch.set_num_threads(2)
    with pytest.raises(Stopped) as stopped:
        trained(tiny, spec, paths, chosen, path=path, pixels=pixels, asked=asks(2))
    assert stopped.value.goes_on
    again = trained(tiny, spec, paths, chosen, path=path, pixels=pixels)
    torch.set_num_threads(1)
    assert bits(again) == bits(whole)
    assert (again.step, again.losses) == (whole.step, whole.losses)


def test_its_log_says_where_it_begins_goes_on_and_what_it_keeps(
    tiny: Loaded, pixels: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = list[str]()
    monkeypatch.setattr(told, "tell", lines.append)
    paths, path = paths_of(tiny, "qformer"), tmp_path / "c.safetensors"
    with pytest.raises(Stopped):
        trained(tiny, recovery(), paths, SAMPLES, path=path, pixels=pixels, asked=asks(2))
    assert lines[0] == "recover: begins: 4 steps of 4, 45 references, 15 held out"
    lines.clear()
    monkeypatch.setattr(told, "SECONDS", 0.0)
    outcome = trained(tiny, recovery(), paths, SAMPLES, path=path, pixels=pixels)
    assert lines[0] == "recover: goes on at step 2: 4 steps of 4, 45 references, 15 held out"
    assert (
        lines[-1]
        == f"recover: keeps step {outcome.step} of 4, the least held-out loss, {outcome.losses[outcome.step]:.4f}"
    )
    assert f"recover: step 4 of 4, held-out loss {outcome.losses[4]:.4f}" in lines
    assert re.fullmatch(r"recover: step 3 of 4, loss \d+\.\d{4}", next(x for x in lines if ", loss" in x))
    lines.clear()
    trained(tiny, recovery(steps=1), paths, EVERY, pixels=pixels)
    assert lines[-1] == "recover: keeps step 1 of 1, the last: nothing is held out"


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("dies_at", [1, 3])
def test_a_training_that_died_goes_on_from_its_last_checkpoint(
    dies_at: int, tiny: Loaded, pixels: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, spec, path = paths_of(tiny, "qformer"), recovery(), tmp_path / "c.safetensors"
    before, whole = state(tiny), trained(tiny, spec, paths, EVERY, pixels=pixels)
    own, made = Learner.step, []

    def dying(learner: Learner, gradients: list[torch.Tensor], number: int) -> bool:
        if number == dies_at:
            learner.tensors[0].data += 1  # half-way through a step
            raise RuntimeError("died")
        made.append(number)
        return own(learner, gradients, number)

    monkeypatch.setattr(Learner, "step", dying)
    with pytest.raises(RuntimeError, match="died"):
        trained(tiny, spec, paths, EVERY, path=path, pixels=pixels)
    assert same(state(tiny), before)
    monkeypatch.setattr(Learner, "step", lambda *given: made.append(given[2]) or own(*given))
    assert bits(trained(tiny, spec, paths, EVERY, path=path, pixels=pixels)) == bits(whole)
    assert made == [0, 1, 2, 3]


@pytest.mark.parametrize("damage", ["cut", "other name", "no checkpoint"])
def test_what_is_no_checkpoint_of_this_training_is_not_read(
    damage: str, tiny: Loaded, pixels: Features, tmp_path: Path
) -> None:  # fmt: skip
    paths, path = paths_of(tiny, "qformer"), tmp_path / "c.safetensors"
    with pytest.raises(Stopped):
        trained(tiny, recovery(), paths, SAMPLES, path=path, pixels=pixels, asked=asks(2))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    if damage == "no checkpoint":
        path.write_bytes(b"{}")
    with Learner(tiny.model, paths, recovery()) as learner:
        found = Checkpoints(path, "test" if damage != "other name" else "another").read(learner)
        assert (found.step, found.losses) == (0, {})
        assert not learner.optimizer.state


def test_a_disk_that_refuses_costs_the_checkpoint_alone(tiny: Loaded, pixels: Features, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "c.safetensors"
    with pytest.raises(Stopped):
        trained(tiny, recovery(), paths_of(tiny, "qformer"), SAMPLES, path=path, pixels=pixels, asked=asks(1))


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_model_is_left_as_it_was(method: str, tiny: Loaded, pixels: Features) -> None:
    before, modules = state(tiny), [type(m) for m in tiny.model.modules()]
    outcome = trained(tiny, recovery(method, steps=1), paths_of(tiny), SAMPLES, pixels=pixels)
    assert same(state(tiny), before)
    assert [type(m) for m in tiny.model.modules()] == modules
    assert not any(p.requires_grad or p.grad is not None for p in tiny.model.parameters())
    assert not hasattr(tiny.model, "peft_config")
    kinds = {type(x) for x in outcome.trained.values()}
    assert kinds == {Adapter if method == "lora" else Tuned}


def test_another_seed_is_another_adapter(tiny: Loaded, pixels: Features) -> None:
    paths = paths_of(tiny, "qformer")
    a, b = (trained(tiny, recovery(steps=1, seed=seed, holdout=0), paths, SAMPLES, pixels=pixels) for seed in (0, 1))
    assert bits(a) != bits(b)


def test_the_step_with_the_least_held_out_loss_is_chosen(tiny: Loaded, pixels: Features) -> None:
    """The embedded model has learnt these scenes: a large learning rate only spoils it."""
    paths = paths_of(tiny, "qformer")
    outcome = trained(tiny, recovery(learning_rate=0.5), paths, SAMPLES, pixels=pixels)
    assert min(outcome.losses, key=lambda step: outcome.losses[step]) == outcome.step == 0
    assert all(isinstance(x, Adapter) and not x.b.any() for x in outcome.trained.values())


def test_without_held_out_images_the_last_step_counts(tiny: Loaded, pixels: Features) -> None:
    outcome = trained(tiny, recovery(learning_rate=0.5, steps=2), paths_of(tiny, "qformer"), EVERY, pixels=pixels)
    assert (outcome.step, dict(outcome.losses)) == (2, {})


def test_training_helps_a_compressed_model(tiny: Loaded, pixels: Features) -> None:
    with Patch(tiny) as patch:
        patch.apply(recipe(tiny.anatomy, "qformer", method="rtn", bits=3, strategy="channel", symmetric=False))
        compressed = state(tiny)
        outcome = trained(tiny, recovery(steps=12, batch_size=16, rank=8), paths_of(tiny), SAMPLES, pixels=pixels)
        assert same(state(tiny), compressed)
    assert outcome.losses[outcome.step] < 0.97 * outcome.losses[0]


# ---- losses


def test_a_teacher_that_says_the_same_adds_nothing(tiny: Loaded, pixels: Features) -> None:
    teacher = teacher_of(tiny, conf("model/tiny"))
    spec = recovery(loss="distill", distill_weight=0.25, temperature=3.0)
    read = Texts(tiny, SAMPLES).learnt.picked(range(4))
    ours, theirs = (Pictures(x, pixels, len(x.images)).logits for x in (tiny, teacher))
    task = of_batch(fewer(spec, loss="task"), ours, None, read, 7)
    assert float(of_batch(spec, ours, theirs, read, 7)) == pytest.approx(0.75 * float(task), rel=1e-6)


def test_the_distance_to_a_teacher_is_that_of_hinton() -> None:
    """By hand: two tokens, three words."""
    ours, theirs = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 1.0]]), torch.tensor([[0.0, 1.0, 1.0], [2.0, 0.0, 0.0]])
    read, spec = Read([0], [[]], [[1, 2]]), recovery(loss="distill", temperature=2.0, distill_weight=0.5)
    found = of_batch(spec, lambda _: ours, lambda _: theirs, read, 2)
    distance = 0.0
    for a, b in zip(ours.tolist(), theirs.tolist(), strict=True):
        p, q = ([math.exp(x / 2) / sum(math.exp(y / 2) for y in row) for x in row] for row in (b, a))
        distance += sum(x * math.log(x / y) for x, y in zip(p, q, strict=True))
    task = -sum(row[k] - math.log(sum(map(math.exp, row))) for row, k in zip(ours.tolist(), (1, 2), strict=True))
    assert float(found) == pytest.approx(0.5 * task / 2 + 0.5 * 4 * distance / 2, rel=1e-5)


def test_a_teacher_shares_the_tensors_and_not_the_compression(tiny: Loaded, pixels: Features) -> None:
    teacher = teacher_of(tiny, conf("model/tiny"))
    read, layer = Texts(tiny, SAMPLES).learnt.picked(range(2)), paths_of(tiny, "llm")[0]
    pointers = [x.model.get_submodule(layer).weight.data_ptr() for x in (tiny, teacher)]
    assert pointers[0] == pointers[1]
    plain = Pictures(tiny, pixels, 0).logits(read)
    with Patch(tiny) as patch:
        patch.apply(recipe(tiny.anatomy, "all", method="rtn", bits=2, strategy="channel", symmetric=False))
        assert torch.equal(Pictures(teacher, pixels, 0).logits(read), plain)
        assert not torch.equal(Pictures(tiny, pixels, 0).logits(read), plain)


def test_the_learning_rate_rises_and_falls() -> None:
    spec = recovery(steps=100, learning_rate=1.0)
    rates = [rate(spec, step) for step in range(100)]
    assert rates[0] == 1 / 20
    assert rates[19] == pytest.approx(0.81)
    assert rates[-1] == 0.05
    assert rates.index(max(rates)) == 19
    assert rate(recovery(steps=1, learning_rate=1.0), 0) == 1.0


# ---- failures


def test_out_of_memory_names_the_batch_size(tiny: Loaded, pixels: Features, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes\nmore")

    monkeypatch.setattr(Trainer, "_step", full)
    with pytest.raises(MemoryError, match=r"recover.batch_size=4 \(.*9 bytes\); right: a smaller recover.batch_size$"):
        trained(tiny, recovery(), paths_of(tiny, "llm"), SAMPLES, pixels=pixels)


def test_gradients_that_are_not_finite_are_an_error(tiny: Loaded, pixels: Features) -> None:
    spec = recovery(learning_rate=1.0)
    with Learner(tiny.model, paths_of(tiny, "llm"), spec) as learner:
        assert not learner.step([torch.full_like(x, math.nan) for x in learner.tensors], 0)
    broken = Features(pixels.ids, pixels.rows.mapped(lambda x: x * math.nan) if pixels.rows else None)
    with pytest.raises(
        FloatingPointError, match=r"gradients of step 0 are not finite; right: a smaller recover.learning_rate"
    ):
        trained(tiny, spec, paths_of(tiny, "llm"), samples(holdout=0.0), pixels=broken)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("method", quick(["lora", "full"]))
def test_half_precision_is_trained_in_float32_and_kept_as_it_is(method: str, dtype: str) -> None:
    loaded = load({**conf("model/tiny"), "dtype": dtype}, TINY)
    before, paths = state(loaded), paths_of(loaded, "qformer")[:8]
    with Learner(loaded.model, paths, recovery(method)) as learner:
        assert {x.dtype for x in learner.tensors} == {torch.float32}
        assert learner.scale == (4096 if dtype == "float16" else 1)
    outcome = trained(loaded, recovery(method, steps=2), paths, samples(n=6, holdout=0.0))
    assert {x.dtype for x in tensors(outcome.trained).values()} == {getattr(torch, dtype)}
    assert same(state(loaded), before)


def test_a_gradient_that_overflows_in_float16_costs_a_step_and_half_the_scale() -> None:
    loaded = load({**conf("model/tiny"), "dtype": "float16"}, TINY)
    paths = paths_of(loaded, "qformer")[:2]
    own, scales = Learner.gradients, list[float]()

    def overflowing(learner: Learner) -> list[torch.Tensor]:
        scales.append(learner.scale)
        found = own(learner)
        return [x * math.inf for x in found] if len(scales) < 3 else found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "gradients", overflowing)
        outcome = trained(loaded, recovery(steps=4), paths, samples(n=6, holdout=0.0))
    assert scales == [4096, 2048, 1024, 1024]
    assert all(bool(torch.isfinite(x).all()) for x in tensors(outcome.trained).values())
