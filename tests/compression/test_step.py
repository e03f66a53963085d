"""A step that is no quantization, end to end: options, keys, chain, size, the model and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from blip2sweep.apply.patch import Patch
from blip2sweep.cache.tensors import Memo
from blip2sweep.compression import step as step_module
from blip2sweep.compression.step import STEPS, sites_of
from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import anatomy
from blip2sweep.models.load import Loaded, load
from blip2sweep.recipe import Recipe, resolve_recipe
from blip2sweep.recipe.chain import block_entries
from blip2sweep.recipe.compact import expand, targets, text
from blip2sweep.recipe.size import alike, size
from tests.apply.calibration.test_calibration import calibrator, samples
from tests.checkpoints import TINY, tiny_config
from tests.composing import chain, plan
from tests.in_process import jobs, run

ANATOMY = anatomy(tiny_config())
BLOCK = "vision_model.encoder.layers.2"


@pytest.fixture(autouse=True)
def _scale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STEPS, "scale", "tests.toy.step")


@pytest.fixture(scope="module")
def opt() -> Loaded:
    return load(tiny_config(), TINY)


@pytest.fixture
def unharmed(opt: Loaded) -> Iterator[Loaded]:
    """Whatever a test does, every tensor, storage, module and hook is afterwards what it was."""
    before = snapshot(opt)
    yield opt
    assert snapshot(opt) == before


def snapshot(loaded: Loaded) -> dict[str, Any]:
    tensors = [*loaded.model.named_parameters(), *loaded.model.named_buffers()]
    return {
        **{name: (x.data_ptr(), id(x), float(x.double().sum()), float(x.double().abs().sum())) for name, x in tensors},
        **{f"module {n}": (id(m), len(m._forward_pre_hooks), len(m._forward_hooks), "forward" in vars(m))
           for n, m in loaded.model.named_modules()},
    }  # fmt: skip


def recipe(bits: Any = "none", order: str | None = None, target: str = "vit:2", factor: float = 0.5, **quant: Any) -> Recipe:  # fmt: skip
    blocks = quant.pop("blocks", "all")
    config = {"part": "vit", "blocks": blocks, "layers": "all", "quant": {"method": "rtn", "bits": bits, **quant}}
    options = {"target": target, "factor": factor, **({"order": order} if order else {})}
    return resolve_recipe({**config, "steps": {"scale": options}}, ANATOMY)


def test_its_entries_make_a_recipe_of_their_own() -> None:
    made, plain = recipe(), resolve_recipe({"part": "none", "blocks": "all", "layers": "all"}, ANATOMY)
    assert [(site.path, spec.as_dict()) for site, spec in made.step(0)] == [(BLOCK, {"factor": 0.5})]
    assert (made.empty, plain.empty, made.hash == plain.hash) == (False, True, False)
    assert made.hash != recipe(factor=0.25).hash
    assert recipe(target="vit:2").hash == recipe(target="vit:2:all").hash


def test_the_order_of_steps_is_part_of_the_recipe() -> None:
    first, last = recipe(4, "before"), recipe(4, "after")
    assert (first.kinds, last.kinds) == (("scale", "quantize"), ("quantize", "scale"))
    assert len({first.hash, last.hash, recipe(4, target="vit:3").hash}) == 3
    assert recipe(4).hash == first.hash  # the step's own choice
    assert block_entries(first.parts["vit"])[2] != block_entries(last.parts["vit"])[2]


def test_blocks_before_the_first_changed_one_are_shared() -> None:
    plain = resolve_recipe({"part": "none", "blocks": "all", "layers": "all"}, ANATOMY)
    both = [chain("start", r, ANATOMY.stages).keys for r in (plain, recipe())]
    assert [x == y for x, y in zip(*both, strict=True)] == [True] * 3 + [
        False
    ] * 5  # the states before each block, and the output
    assert chain("start", recipe(), ANATOMY.stages).language == chain("start", plain, ANATOMY.stages).language


def test_the_short_form_means_the_same() -> None:
    for made in (recipe(), recipe(4, "before"), recipe(4, "after"), recipe(3, target="llm:first+last")):
        listed = targets(made)
        assert expand(listed, ANATOMY).hash == made.hash
        assert targets(expand(listed, ANATOMY)) == listed
    assert text(targets(recipe(4, "after"))) == "vit:all:all=rtn4/channel; vit:2:all=scale0.5"
    assert text(targets(recipe(4))) == "vit:2:all=scale0.5; vit:all:all=rtn4/channel"


def test_sizes_go_through_the_step() -> None:
    quantized = resolve_recipe({"part": "vit", "blocks": "all", "layers": "all", "quant": {"method": "rtn", "bits": 4}}, ANATOMY)  # fmt: skip
    assert (
        size(recipe(4), alike(10**6, 16))
        == size(recipe(4, "after"), alike(10**6, 16))
        == size(quantized, alike(10**6, 16))
    )
    alone = size(recipe(), alike(10**6, 16))
    assert (alone.compression_ratio, alone.layers_touched) == (1, 4)
    assert alone.params_touched == sum(x.weights for x in ANATOMY.parts["vit"].linears if x.block == 2)


# ---- the model


def test_it_is_put_in_and_taken_back_bit_for_bit(unharmed: Loaded) -> None:
    block = unharmed.model.get_submodule(BLOCK)
    before = [p.clone() for p in block.parameters()]
    with Patch(unharmed).apply(recipe()):
        assert all(torch.equal(x * 0.5, y) for x, y in zip(before, block.parameters(), strict=True))


def test_layers_changed_counts_what_any_step_changes(unharmed: Loaded) -> None:
    """A layer that is scaled and quantized counts once."""
    with Patch(unharmed).apply(recipe()) as scaled:
        assert (scaled.layers_changed, scaled.layers) == (4, ())
    for order in ("before", "after"):
        with Patch(unharmed).apply(recipe(4, order, blocks="0-2")) as both:
            assert both.layers_changed == len(both.layers) == 12


def test_steps_act_in_their_order(unharmed: Loaded) -> None:
    """A scale before rounding to a fixed number of columns' grid moves nothing; one that is no power of two does."""
    weight = unharmed.model.get_submodule(f"{BLOCK}.mlp.fc1").weight
    found = []
    for order in ("before", "after"):
        with Patch(unharmed).apply(recipe(4, order, factor=0.3)):
            found.append(weight.clone())
    with Patch(unharmed).apply(resolve_recipe({"part": "vit", "blocks": "all", "layers": "all", "quant": {"method": "rtn", "bits": 4}}, ANATOMY)):  # fmt: skip
        assert torch.equal(weight * 0.3, found[1])
    assert not torch.equal(*found)


def test_one_recipe_after_the_other_is_each_from_scratch(unharmed: Loaded) -> None:
    """The incremental way, over every pair of neighbours, with remembered weights: same tensors as a fresh one."""
    recipes = [
        recipe(),
        recipe(4),
        recipe(4, "after"),
        recipe(3),
        recipe(4, target="vit:3"),
        recipe(4, "after", factor=2.0),
    ]

    def tensors() -> list[float]:
        return [float(p.double().abs().sum()) for p in unharmed.model.vision_model.parameters()]

    expected = []
    for made in recipes:
        with Patch(unharmed).apply(made):
            expected.append(tensors())
    patch = Patch(unharmed, Memo(torch.device("cpu"), 0, 10**9))
    with patch:
        for i in (0, 1, 2, 3, 4, 5, 1, 1, 0, 5, 4, 2, 0, 3):
            patch.apply(recipes[i])
            assert tensors() == expected[i]


def test_only_layers_that_differ_are_written(unharmed: Loaded) -> None:
    with Patch(unharmed) as patch:
        assert patch.apply(recipe(4, "after")).written == 24
        assert patch.apply(recipe(4, "after", factor=2.0)).written == 0
        assert patch.apply(recipe(4, "before")).written == 24


def test_a_step_that_writes_elsewhere_is_refused(unharmed: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.toy import step as toy

    def everywhere(model: torch.nn.Module, pairs: Any, undo: Any, made: Any) -> None:
        for parameter in model.get_submodule("vision_model.encoder.layers").parameters():
            undo.data(parameter, parameter.data * 2)

    monkeypatch.setattr(toy, "apply", everywhere)
    with pytest.raises(RuntimeError, match="differ from the recipe"):
        Patch(unharmed).apply(recipe())


def test_calibration_sees_the_steps_before_it(unharmed: Loaded) -> None:
    """Other measurements under other names; what is done after quantization changes neither."""
    chosen, work = samples(n=8), calibrator(unharmed)

    def key(made: Recipe) -> tuple[str, float]:
        with Patch(unharmed).apply(made.before):
            layer = work(made, chosen)[f"{BLOCK}.mlp.fc1"]
        values = layer.values(torch.float32)
        assert values is not None
        return layer.key, float(values.double().abs().sum())

    plain = resolve_recipe(
        {"part": "vit", "blocks": "2", "layers": "all", "quant": {"method": "gptq", "bits": 3}}, ANATOMY
    )
    first, last = (recipe(3, order, "vit:1", method="gptq") for order in ("before", "after"))
    assert len({key(plain)[0], key(first)[0], key(last)[0]}) == 3
    assert key(first)[1] != key(last)[1]


# ---- on the command line


def test_options_of_a_step_make_a_cell() -> None:
    made = plan("part=none", "+steps.scale.factor=0.5,0.25", "steps.scale.target=vit:0")
    assert len(set(made.keys)) == 2
    assert made.cells[str(made.keys[0])].columns()["recipe"] == "vit:0:all=scale0.5"
    assert len(made.baselines) == 1


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["steps.scal.factor=2"], r"steps\.scal: unknown step; .*scale"),
        (["steps.scale=2"], "steps"),
        (["steps.scale.factor=2"], r"steps\.scale\.target is not set; right"),
        (["steps.scale.target=vit:0"], r"steps\.scale\.factor=None: right"),
        (["steps.scale.target=vit:0:mlp", "steps.scale.factor=2"], r"takes a whole block; right: vit:0"),
        (["steps.scale.target=vit:9", "steps.scale.factor=2"], "outside vit"),
        (["steps.scale.target=vit:0", "steps.scale.factor=2", "steps.scale.gamma=1"], r"steps\.scale\.gamma: unknown"),
        (["steps.scale.target=vit:0", "steps.scale.factor=2", "steps.scale.order=beside"], "right: before or after"),
        (["steps.quantize.bits=2"], r"steps\.quantize: .* right: those"),
    ],
)
def test_what_is_wrong_is_one_line(words: list[str], match: str) -> None:
    with pytest.raises(UserError, match=match, check=lambda e: "\n" not in str(e)):
        plan(*words)


def test_sites_of_each_level() -> None:
    paths = {
        level: [s.path for s in sites_of("vit", ANATOMY, level, "x")["vit"]] for level in ("layer", "block", "part")
    }
    assert (len(paths["layer"]), len(paths["block"])) == (24, 6)
    assert paths["part"] == ["vision_model.encoder.layers"]
    assert step_module.step("quantize").LEVEL == "layer"


def test_a_worker_runs_it_and_shares_what_is_alike() -> None:
    """Cells that share blocks, in one process, say what each says alone; the last one is the baseline again."""
    words = ("part=none,vit", "quant.bits=4", "blocks=4", "steps.scale.factor=0.2", "steps.scale.target=vit:3,llm:0")
    these = jobs(*words, limit=6)
    shared, alone = run(these), run(these, cache="off")
    assert {k: p.hash for k, (p, _) in shared.items()} == {k: p.hash for k, (p, _) in alone.items()}
    assert len({p.hash for p, _ in shared.values()}) == len(these) == 5
    assert sum(info["cost"].get("hits_vision_blocks", 0) for _, info in shared.values()) > 0
