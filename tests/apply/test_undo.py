"""Whatever fails, and whenever, the model is afterwards as it was loaded: tensors, storages, modules, hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blip2sweep.apply import packed as packed_module
from blip2sweep.apply.packed import packed_layers, split
from blip2sweep.apply.patch import Patch
from blip2sweep.compression.quantize import step as quantize
from blip2sweep.compression.quantize.scheme import Scheme
from blip2sweep.compression.step import STEPS
from blip2sweep.compression.undo import Undo
from blip2sweep.models.load import Loaded, load
from blip2sweep.recipe import Recipe, resolve_recipe
from tests.apply.calibration.test_calibration import calibrator, samples
from tests.checkpoints import TINY, recipe, tiny_config

EXCHANGES = ("data", "module", "pre_hook", "hook", "attribute")


class Boom(BaseException):
    """No Exception, as Ctrl-C is none."""


@pytest.fixture(scope="module")
def opt() -> Loaded:
    return load(tiny_config(), TINY)


@pytest.fixture
def unharmed(opt: Loaded) -> Iterator[Loaded]:
    values = {n: x.clone() for n, x in tensors(opt)}
    before = identities(opt)
    yield opt
    assert identities(opt) == before
    assert all(torch.equal(x, values[n]) for n, x in tensors(opt))


def tensors(loaded: Loaded) -> list[tuple[str, Tensor]]:
    return [*loaded.model.named_parameters(), *loaded.model.named_buffers()]


def identities(loaded: Loaded) -> dict[str, tuple[object, ...]]:
    """Of every tensor its object and storage; of every module itself, its hooks, what was set on it."""
    modules = loaded.model.named_modules()
    hooks = {n: (id(m), *m._forward_pre_hooks, "/", *m._forward_hooks, *sorted(vars(m))) for n, m in modules}
    return {**hooks, **{f"{n} tensor": (id(x), x.data_ptr()) for n, x in tensors(loaded)}}


class Faults:
    """Raises in the k-th exchange that any Undo makes: before it, or when it is made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at: int | None = None
        self.made, self.late = 0, False
        for name in EXCHANGES:
            monkeypatch.setattr(Undo, name, self._failing(getattr(Undo, name)))

    def _failing(self, exchange: Callable[..., None]) -> Callable[..., None]:
        def failing(*args: Any) -> None:
            self.made += 1
            if self.made == self.at and not self.late:
                raise Boom
            exchange(*args)
            if self.made == self.at:
                raise Boom

        return failing


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    return Faults(monkeypatch)


def everything(loaded: Loaded, order: str = "before") -> Recipe:
    """A step, rounded weights and inputs, packed layers."""
    rules = {"a": {"target": "vit:1:mlp", "bits": 8}}
    quant = {"method": "minmax", "bits": 4, "input": {"bits": 8}}
    config = {"part": "vit", "blocks": "0-1", "layers": "all", "quant": quant, "rules": rules}
    scale = {"scale": {"target": "vit:1", "factor": 2.0, "order": order}}
    made = resolve_recipe({**config, "steps": scale}, loaded.anatomy)
    return Recipe({n: p.requantized(lambda _, s: packed(s)) for n, p in made.parts.items()})


def packed(scheme: Scheme) -> Scheme:
    """Layers of 8 bits are to be packed ones."""
    return replace(scheme, weights=replace(scheme.weights, packed="cpu")) if scheme.weights.num_bits == 8 else scheme


def put(loaded: Loaded, made: Recipe, patch: Patch) -> None:
    """As a worker does it: the simulated ones stay, the packed ones are taken back after the cell."""
    simulated, exchanged = split(made)
    patch.apply(simulated)
    with packed_layers(loaded, exchanged):
        pass


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STEPS, "scale", "tests.toy.step")
    monkeypatch.setattr(packed_module, "pack", lambda module, scheme: nn.Identity())


@pytest.mark.usefixtures("worked")
@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("late", [False, True])
def test_a_failure_at_any_exchange_leaves_the_model_as_loaded(
    unharmed: Loaded, faults: Faults, order: str, late: bool
) -> None:
    before, made = identities(unharmed), everything(unharmed, order)
    with Patch(unharmed) as patch:
        put(unharmed, made, patch)
    total, faults.late = faults.made, late
    assert total == 12 + 6 + 2 + 12  # weights and biases, hooks, packed modules, the scaled block
    for k in range(1, total + 1):
        faults.at, faults.made = k, 0
        with pytest.raises(Boom), Patch(unharmed) as patch:
            put(unharmed, made, patch)
        assert identities(unharmed) == before, k


@pytest.mark.usefixtures("worked")
def test_a_failure_between_two_cells_leaves_nothing_of_the_first(unharmed: Loaded, faults: Faults) -> None:
    before, first, second = identities(unharmed), recipe(unharmed.anatomy, "vit", "0-2", bits=8), everything(unharmed)
    patch = Patch(unharmed)
    for k in (1, 5, 17, 30):
        faults.at, faults.made = k, -1000
        patch.apply(first)
        faults.made = 0
        with pytest.raises(Boom):
            patch.apply(second)
        assert identities(unharmed) == before


def test_a_failure_while_calibrating_leaves_the_model_as_loaded(unharmed: Loaded, faults: Faults) -> None:
    before, chosen = identities(unharmed), samples(n=2, upstream="model")
    made = recipe(unharmed.anatomy, "vit+qformer", "0-1", "attention", method="awq")
    calibrator(unharmed)(made, chosen)
    for k in range(1, faults.made + 1, 7):
        faults.at, faults.made = k, 0
        with pytest.raises(Boom):
            calibrator(unharmed)(made, chosen)
        assert identities(unharmed) == before


def test_a_layer_that_cannot_be_taken_back_keeps_no_other_from_it() -> None:
    module, undo = nn.Linear(2, 2), Undo()
    weight, bias = module.weight.data_ptr(), module.bias.data_ptr()
    undo.data(module.weight, torch.zeros(2, 2))
    undo._back.append(lambda: 1 / 0)
    undo.data(module.bias, torch.zeros(2))
    with pytest.raises(ZeroDivisionError):
        undo.back()
    assert (module.weight.data_ptr(), module.bias.data_ptr()) == (weight, bias)
    undo.back()


def test_changes_are_taken_back_in_reverse_order() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    first, before = model[0], dict(vars(model[0]))
    with Undo() as undo:
        undo.attribute(first, "layer_idx", 3)
        undo.attribute(first, "layer_idx", 4)
        undo.attribute(first, "in_features", 7)
        undo.module(model, "0", nn.Identity())
        undo.module(model, "0", nn.Identity())
        undo.hook(model, lambda *args: None)
        assert (first.layer_idx, first.in_features, len(model._forward_hooks)) == (4, 7, 1)
    assert model[0] is first
    assert dict(vars(first)) == before
    assert not model._forward_hooks


def test_a_second_quantization_lies_over_the_first(unharmed: Loaded) -> None:
    """The same layers again, without calibration: each step takes what the one before it left."""
    once, again = (recipe(unharmed.anatomy, "vit", "0", bits=b) for b in (4, 2))
    both = Recipe({n: type(p)(p.part, p.steps + again.parts[n].steps) for n, p in once.parts.items()})
    path = next(iter(once.schemes))
    module = unharmed.model.get_submodule(path)
    with ExitStack() as stack:
        stack.enter_context(Patch(unharmed).apply(once))
        undo = stack.enter_context(Undo())
        quantize.apply(unharmed.model, again.step(0), undo, {})
        expected = module.weight.clone()
    with Patch(unharmed).apply(both):
        assert torch.equal(module.weight, expected)
    assert both.hash not in (once.hash, again.hash)
