"""Recovered cells: merged or not, recalled, in several processes, stopped and gone on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from blip2sweep.apply.recovery.kept import tensors
from blip2sweep.apply.recovery.trainer import Trainer
from blip2sweep.backends.shares import share_of
from blip2sweep.backends.torch import recover
from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.cache.disk import RECOVERY
from blip2sweep.errors import UserError
from blip2sweep.machine import stopping
from tests.apply.recovery.made import asks
from tests.in_process import jobs, told

WORDS = ("part=qformer", "quant.bits=3", "recover.steps=3", "recover.batch_size=4", "recover.n_samples=16")
Row = tuple[Any, dict[str, Any]]


def planned(*words: str, method: str = "lora") -> list[dict[str, Any]]:
    """The jobs of cells with a recovery, without baseline and control."""
    return [
        j
        for j in jobs(*WORDS, f"recover={method}", *words, limit=6)
        if j["key"] not in (j["baseline"], j.get("control"))
    ]


def backend(**settings: Any) -> TorchBackend:
    return TorchBackend({"device": "cpu", **settings})


def told_of(runner: TorchBackend, job: dict[str, Any]) -> Row:
    return told(runner(job))  # type: ignore[arg-type]


@pytest.mark.thorough
def test_merged_and_unmerged_write_the_same_and_train_once(monkeypatch: pytest.MonkeyPatch) -> None:
    merged, beside = (planned(f"recover.merge={m}", "recover.holdout=0") for m in ("true", "false"))
    runner = backend()
    first, cost = told_of(runner, merged[0])
    monkeypatch.setattr(Trainer, "__call__", _never)
    second, other = told_of(runner, beside[0])
    assert merged[0]["key"] != beside[0]["key"]
    assert first.text == second.text
    assert first.nll_sum == pytest.approx(second.nll_sum, rel=1e-5)
    assert [c["cost"]["hits_recover"] for c in (cost, other)] == [0, 1]
    same = ("adapter", "recover_steps", "seconds_recover")
    assert [cost["cost"][k] for k in same] == [other["cost"][k] for k in same]


def _never(*_: object) -> None:
    raise AssertionError("trained twice")


@pytest.mark.thorough
def test_a_cell_leaves_the_model_as_loaded() -> None:
    runner, (job,) = backend(cache="off"), planned()
    plain = jobs("part=none", limit=6)[0]
    before = runner.quantized(plain).model  # type: ignore[arg-type]
    kept = {k: v.clone() for k, v in before.state_dict().items()}
    told_of(runner, job)
    assert runner.state is not None
    runner.state.patch.restore()
    after = runner.state.loaded.model.state_dict()
    assert list(after) == list(kept)
    assert all(torch.equal(v, after[k]) for k, v in kept.items())


@pytest.mark.thorough
def test_what_was_trained_is_recalled_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (job,) = planned()
    first, cost = told_of(backend(cache="disk", cache_dir=str(tmp_path)), job)
    assert not list((tmp_path / RECOVERY).glob("*"))  # a checkpoint is of no use any more
    monkeypatch.setattr(Trainer, "__call__", _never)
    second, again = told_of(backend(cache="disk", cache_dir=str(tmp_path)), job)
    assert first == second
    assert again["cost"]["adapter"] == cost["cost"]["adapter"]
    assert again["cost"]["hits_recover"] == 1


@pytest.mark.thorough
def test_a_stopped_cell_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    (job,) = planned("recover.loss=distill", "recover.holdout=0")
    whole, cost = told_of(backend(), job)
    with stopping.told_by(asks(2)), pytest.raises(stopping.Stopped) as stopped:
        told_of(backend(cache="memory", cache_dir=str(tmp_path)), job)
    assert stopped.value.goes_on
    (checkpoint,) = (tmp_path / RECOVERY).glob("*.safetensors")
    again, more = told_of(backend(cache="memory", cache_dir=str(tmp_path)), job)
    assert not checkpoint.exists()
    assert (again, more["cost"]["adapter"]) == (whole, cost["cost"]["adapter"])


@pytest.mark.thorough
@pytest.mark.parametrize("method", ["qlora", "full"])
def test_other_methods_train_and_change_their_layers(method: str) -> None:
    words = ["recover.target=qformer", *(["quant=nf4", "quant.bits=4"] if method == "qlora" else [])]
    (job,) = planned(*words, method=method)
    _, row = told_of(backend(), job)
    assert row["layers_changed"] == 48
    assert row["cost"]["recover_loss"] <= row["cost"]["recover_loss_before"]


@pytest.mark.thorough
def test_processes_of_one_cell_have_one_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (job,) = planned()
    first = backend()
    first(share_of(job, 0, 2, tmp_path))  # type: ignore[arg-type]
    monkeypatch.setattr(Trainer, "__call__", _never)
    second = backend()
    second(share_of(job, 1, 2, tmp_path))  # type: ignore[arg-type]
    assert first.state is not None
    assert second.state is not None
    assert first.state.recoveries.columns["adapter"] == second.state.recoveries.columns["adapter"]


@pytest.mark.thorough
def test_two_processes_train_together(tmp_path: Path) -> None:
    """Each takes half of every batch. Their key is their own, and their adapter nearly that of one process."""
    (one,), (two,) = planned("recover.holdout=0"), planned("recover.holdout=0", "recover.processes=2")
    assert one["key"] != two["key"]
    _, alone = told_of(first := backend(), one)
    _, whole = told_of(second := backend(), two)
    runner = backend(cache="memory", cache_dir=str(tmp_path))
    with stopping.told_by(lambda: True), pytest.raises(stopping.Stopped):
        runner(two)  # type: ignore[arg-type]
    assert len(list((tmp_path / RECOVERY).glob("*.safetensors"))) == 1
    _, again = told_of(runner, two)
    assert again["cost"]["adapter"] == whole["cost"]["adapter"] != alone["cost"]["adapter"]
    ours, theirs = (_tensors(x) for x in (first, second))
    assert all(torch.allclose(x, theirs[name], atol=1e-4) for name, x in ours.items())


def _tensors(runner: TorchBackend) -> dict[str, torch.Tensor]:
    assert runner.state is not None
    (outcome,) = runner.state.recoveries.outcomes.values()
    return tensors(outcome.trained)


@pytest.mark.thorough
def test_packed_layers_are_refused() -> None:
    (job,) = planned()
    recipe = [{**e, "packed": "cpu"} if "step" not in e else e for e in job["recipe"]]
    runner = backend()
    from blip2sweep.apply.packed import split
    from blip2sweep.recipe.compact import expand

    state = runner._loaded(job)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"recover: packed layers pass on no gradient; right: quant.packed=false"):
        recover.check_packed(*split(expand(recipe, state.loaded.anatomy)))
