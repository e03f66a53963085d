"""Adapters in a model: merged and beside the layers, and taken back bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from blip2sweep.compression.recover import peft_here
from blip2sweep.compression.recover.adapters import Adapter, Trained, Tuned, factors, insert, put, scale
from blip2sweep.compression.recover.spec import Recovery
from blip2sweep.compression.undo import Undo
from blip2sweep.errors import MissingExtra
from blip2sweep.models.part import Linear
from tests.apply.recovery.made import recovery
from tests.composing import plan

LAYERS = [Linear("0", "0", "mlp", "layers", 0, 6, 5, True), Linear("2", "2", "mlp", "layers", 1, 4, 6, False)]
SPEC = recovery(rank=2, alpha=3.0)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@pytest.fixture
def model() -> Iterator[Small]:
    torch.manual_seed(0)
    made = Small().requires_grad_(False)
    before, names = {k: (v.data_ptr(), v.clone()) for k, v in made.state_dict().items()}, str(made)
    yield made
    assert str(made) == names
    assert all(
        (v.data_ptr(), True) == (before[k][0], torch.equal(v, before[k][1])) for k, v in made.state_dict().items()
    )
    assert not hasattr(made, "peft_config")


def pairs(spec: Recovery) -> list[tuple[Linear, Recovery]]:
    return [(replace(x, path=f"layers.{x.path}"), spec) for x in LAYERS]


def adapters() -> dict[str, Trained]:
    torch.manual_seed(1)
    return {f"layers.{x.path}": Adapter(torch.randn(2, x.in_features), torch.randn(x.out_features, 2)) for x in LAYERS}


def test_merged_equals_unmerged_equals_the_formula(model: Small) -> None:
    x, trained = torch.randn(3, 5), adapters()
    found = []
    for merged in (True, False):
        with Undo() as undo:
            put(model, pairs(replace(SPEC, merged=merged)), trained, undo)
            found.append(model(x))
            assert not any(p.requires_grad for p in model.parameters())
    first, last = model.layers[0], model.layers[2]
    (a, b), (c, d) = ((t.a, t.b) for t in trained.values() if isinstance(t, Adapter))
    hidden = torch.tanh(x @ first.weight.T + first.bias + 1.5 * (x @ a.T) @ b.T)
    by_hand = hidden @ last.weight.T + 1.5 * (hidden @ c.T) @ d.T
    assert scale(SPEC) == 1.5
    for output in found:
        torch.testing.assert_close(output, by_hand)


def test_whole_layers_are_exchanged(model: Small) -> None:
    trained: dict[str, Trained] = {
        "layers.0": Tuned(torch.ones(6, 5), torch.zeros(6)), "layers.2": Tuned(torch.ones(4, 6))
    }  # fmt: skip
    with Undo() as undo:
        put(model, pairs(recovery("full")), trained, undo)
        assert torch.equal(model(torch.zeros(1, 5)), torch.zeros(1, 4))


def test_new_adapters_follow_the_seed_alone_and_change_nothing(model: Small) -> None:
    x, drawn = torch.randn(3, 5), []
    plain, generator = model(x), torch.get_rng_state()
    for seed, noise in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(noise)
        with Undo() as undo:
            made = insert(model, ["layers.2", "layers.0"], replace(SPEC, seed=seed), undo)
            assert list(made) == ["layers.0", "layers.2"]
            assert torch.equal(model(x), plain)
            drawn.append(torch.cat([factors(layer)[0].flatten() for layer in made.values()]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    torch.set_rng_state(generator)


def test_half_precision_is_merged_in_float32(model: Small) -> None:
    weight = torch.randn(4, 6).to(torch.bfloat16)
    adapter = Adapter(torch.randn(2, 6).to(torch.bfloat16), torch.randn(4, 2).to(torch.bfloat16))
    right = (weight.double() + 1.5 * adapter.b.double() @ adapter.a.double()).to(torch.bfloat16)
    assert torch.equal(adapter.added(weight, 1.5), right)


def test_a_layer_that_was_not_trained_is_an_error(model: Small) -> None:
    with (
        Undo() as undo,
        pytest.raises(RuntimeError, match=r"1 layers of the recipe were not trained, such as layers\.2"),
    ):
        put(model, pairs(SPEC), {"layers.0": adapters()["layers.0"]}, undo)


def test_what_peft_cannot_adapt_leaves_the_model_as_it_was(model: Small) -> None:
    with Undo() as undo, pytest.raises(Exception, match="Tanh"):
        insert(model, ["layers.0", "layers.1"], SPEC, undo)


# ---- planning


@pytest.fixture
def asked_anew() -> Iterator[None]:
    peft_here.lacking.cache_clear()
    yield
    peft_here.lacking.cache_clear()


@pytest.mark.usefixtures("asked_anew")
def test_a_broken_peft_is_one_line_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "peft.py").write_text("from os import nothing_of_this_name")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("BLIP2SWEEP_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(
        MissingExtra, match=r"^recover=lora: needs peft, which cannot be imported \(ImportError: cannot"
    ) as said:
        plan("recover=lora", "part=none")
    assert "\n" not in str(said.value)
    assert str(said.value).endswith("right: pip install 'blip2sweep[recover]', or recover=full")
    assert plan("recover=full", "part=none").cells


@pytest.mark.usefixtures("asked_anew")
def test_that_peft_can_be_imported_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLIP2SWEEP_CACHE_DIR", str(tmp_path / "cache"))
    answers = [None, "asked twice"]
    monkeypatch.setattr(peft_here, "import_error", lambda: answers.pop(0))
    assert peft_here.lacking() is None
    peft_here.lacking.cache_clear()
    assert peft_here.lacking() is None


@pytest.mark.usefixtures("asked_anew")
def test_an_absent_peft_is_one_line_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peft_here, "installed", lambda name: name != "peft")
    with pytest.raises(
        MissingExtra, match=r"recover=lora: needs peft.*pip install 'blip2sweep\[recover\]', or recover=full$"
    ):
        plan("recover=lora", "part=none")
    assert plan("recover=full", "part=none").cells
