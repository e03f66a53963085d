"""Sparse layers in a model: Wanda block by block, composed with every quantizer, and taken back bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from blip2sweep.apply.calibration.batches import CalibrationBatches
from blip2sweep.apply.calibration.blocks_run import BlockRunner
from blip2sweep.apply.calibration.measure import measure
from blip2sweep.apply.patch import Patch
from blip2sweep.cache.disk import Store
from blip2sweep.cache.tensors import Memo
from blip2sweep.compression.quantize import METHODS
from blip2sweep.compression.step import SPARSITY
from blip2sweep.errors import UserError
from blip2sweep.models.load import Loaded, load
from blip2sweep.tasks.calibration import Calibration
from tests.apply.calibration.test_calibration import calibrator, samples
from tests.apply.test_undo import identities, tensors
from tests.checkpoints import TINY, fails, t5_config, tiny_config, write_t5
from tests.compression.sparsity.making import applied, masks, sparse, weights, zeros
from tests.compression.sparsity.test_mask import numpy_wanda


@pytest.fixture(scope="module")
def opt() -> Loaded:
    return load(tiny_config(), TINY)


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load(t5_config(), write_t5(tmp_path_factory.mktemp("t5")))


@pytest.fixture(params=["opt", "t5"])
def loaded(request: pytest.FixtureRequest) -> Iterator[Loaded]:
    """Both families; whatever a test does, every tensor, module and hook is afterwards what it was."""
    model: Loaded = request.getfixturevalue(request.param)
    before, values = identities(model), {n: x.clone() for n, x in tensors(model)}
    yield model
    assert identities(model) == before
    assert all(torch.equal(x, values[n]) for n, x in tensors(model))


def published(loaded: Loaded, part: str, chosen: Calibration) -> dict[str, np.ndarray]:
    """{path: weight} by whole forward passes: hooks on the layers of a block, plain numpy, then the next block."""
    batches = CalibrationBatches(loaded, chosen).batches(loaded.anatomy.parts[part].stage)
    made: dict[str, np.ndarray] = {}
    with torch.no_grad():
        for block in range(loaded.anatomy.parts[part].n_blocks):
            layers = [x.path for x in loaded.anatomy.parts[part].linears if x.block == block]
            seen = inputs(loaded, layers, batches)
            for path in layers:
                weight = loaded.model.get_submodule(path).weight
                made[path] = numpy_wanda(weight.numpy(), seen[path], weight.shape[1] // 2)
            for path in layers:
                loaded.model.get_submodule(path).weight.data = torch.from_numpy(made[path])
    return made


def inputs(loaded: Loaded, paths: list[str], batches: Any) -> dict[str, np.ndarray]:
    """{path: all inputs (tokens, in)} of one pass."""
    found: dict[str, list[np.ndarray]] = {p: [] for p in paths}

    def hook(path: str) -> Any:
        return lambda m, args: found[path].append(args[0].reshape(-1, m.in_features).numpy().copy())

    hooks = [loaded.model.get_submodule(p).register_forward_pre_hook(hook(p)) for p in paths]
    for batch in batches:
        batch.run()
    for h in hooks:
        h.remove()
    return {p: np.concatenate(rows) for p, rows in found.items()}


@pytest.mark.parametrize("part", ["vit", "qformer", "llm"])
def test_wanda_is_the_published_one_block_by_block(loaded: Loaded, part: str) -> None:
    chosen, recipe = samples(n=8), sparse(loaded.anatomy, part)
    with applied(loaded, recipe, chosen):
        made = weights(loaded, recipe)
    originals = {path: loaded.model.get_submodule(path).weight.data for path in made}
    try:
        expected = published(loaded, part, chosen)
    finally:
        for path, data in originals.items():
            loaded.model.get_submodule(path).weight.data = data
    assert made.keys() == expected.keys()
    for path, weight in made.items():
        assert np.array_equal(weight.numpy(), expected[path]), path


@pytest.mark.thorough
@pytest.mark.parametrize("fields", [{"ratio": 0.3}, {"pattern": "2of4"}, {"method": "magnitude", "ratio": 0.7}])
def test_every_row_has_its_zeros_and_nothing_else_changes(loaded: Loaded, fields: dict[str, Any]) -> None:
    recipe = sparse(loaded.anatomy, "all", **fields)
    before = weights(loaded, recipe)
    with applied(loaded, recipe, samples(n=4)) as found:
        assert found.layers_changed == len(before) == sum(len(p.linears) for p in loaded.anatomy.parts.values())
        for path, weight in weights(loaded, recipe).items():
            ratio = fields.get("ratio", 0.5)
            assert (zeros(weight) == int(ratio * weight.shape[1] + 1e-9)).all(), path
            assert torch.equal(weight[weight != 0], before[path][weight != 0])


@pytest.mark.parametrize("method", [m for m in METHODS if METHODS[m].backend is None])
def test_a_zero_is_zero_after_every_quantizer(opt: Loaded, method: str) -> None:
    """Also where the quantizer cannot say zero, as min-max, and where it moves errors about, as GPTQ."""
    if METHODS[method].missing:
        pytest.skip("an extra")
    bits = 4 if METHODS[method].has_bits(4) else 8
    small = {"quant_group_size": 32} if method == "hqq" else {}
    part, layers = ("llm", "all") if method not in ("nf4", "fp4") else ("vit", "attention")
    recipe = sparse(opt.anatomy, part, bits, quant_method=method, layers=layers, blocks="0-1", **small)
    chosen = samples(n=4)
    there = masks(opt, recipe, chosen)
    with applied(opt, recipe.until("quantize"), chosen):
        dense = weights(opt, recipe)
    with applied(opt, recipe, chosen) as found:
        made = weights(opt, recipe)
        assert set(found.layers) == set(made) == set(there)
    for path, weight in made.items():
        assert (weight[dense[path] == 0] == 0).all(), path
        assert not torch.equal(weight, dense[path])
        assert (zeros(dense[path]) == weight.shape[1] // 2).all()


@pytest.mark.parametrize("method", ["gptq", "awq", "smoothquant"])
def test_quantizers_are_calibrated_on_the_sparse_model(opt: Loaded, method: str) -> None:
    """As if the zeros had been in the checkpoint."""
    chosen, recipe = samples(n=4), sparse(opt.anatomy, "vit", 4, quant_method=method, blocks="0-1")
    with applied(opt, recipe, chosen):
        made = weights(opt, recipe)
    with applied(opt, recipe.until("quantize"), chosen):
        plain = recipe.only("quantize")
        prepared = calibrator(opt)(plain, chosen)
    assert {path: x.values(torch.float32).tolist() for path, x in prepared.items() if x.has_weight} == {
        path: x.tolist() for path, x in made.items()
    }


def test_upstream_says_what_is_sparse_before_a_layer(opt: Loaded) -> None:
    chosen = {u: samples(n=4, upstream=u) for u in ("full", "part", "model")}
    made = {u: masks(opt, sparse(opt.anatomy, "vit+qformer"), c) for u, c in chosen.items()}

    def alike(a: str, b: str, part: str, block: int) -> bool:
        paths = [x.path for x in opt.anatomy.parts[part].linears if x.block == block]
        return all(torch.equal(made[a][p].kept, made[b][p].kept) for p in paths)

    assert alike("full", "part", "vit", 0)
    assert alike("part", "model", "vit", 3)
    assert alike("full", "part", "qformer", 0)
    assert not alike("full", "part", "vit", 3)
    assert not alike("part", "model", "qformer", 0)


# ---- one after the other


@pytest.mark.thorough
def test_recipes_one_after_the_other_are_each_from_scratch(loaded: Loaded) -> None:
    """Incrementally, with remembered weights and masks: the same tensors as a fresh model has."""
    chosen, part = samples(n=2), "llm"
    recipes = [
        sparse(loaded.anatomy, part),
        sparse(loaded.anatomy, part, 4),
        sparse(loaded.anatomy, part, 3, method="magnitude"),
        sparse(loaded.anatomy, part, 4, ratio=0.3, quant_method="gptq"),
        sparse(loaded.anatomy, part, 4, method="magnitude", blocks="0"),
    ]
    expected = []
    for made in recipes:
        with applied(loaded, made, chosen):
            expected.append(weights(loaded, made))
    work, patch = calibrator(loaded), Patch(loaded, Memo(torch.device("cpu"), 0, 10**9))
    with patch:
        for i in (0, 1, 2, 3, 4, 3, 0):
            patch.apply(recipes[i].until(SPARSITY))
            found = {SPARSITY: work.masks(recipes[i], chosen)}
            patch.apply(recipes[i].before, made=found)
            patch.apply(recipes[i], work(recipes[i], chosen), found)
            now = weights(loaded, recipes[i])
            assert all(torch.equal(now[path], expected[i][path]) for path in now), i


def test_other_samples_of_one_recipe_are_put_in_anew(opt: Loaded) -> None:
    """The noise floor calibrates one recipe on several seeds."""
    recipe, found = sparse(opt.anatomy, "vit"), list[Tensor]()
    made = [{SPARSITY: masks(opt, recipe, c)} for c in (samples(n=2), samples("vqa", n=6))]
    with Patch(opt) as patch:
        for own in made:
            patch.apply(recipe, made=own)
            found.append(next(iter(weights(opt, recipe).values())))
    assert not torch.equal(*found)


def test_masks_are_kept_on_disk(opt: Loaded, tmp_path: Any) -> None:
    recipe, chosen, store = sparse(opt.anatomy, "qformer"), samples(n=4), Store(tmp_path, 10**8)
    first, second = calibrator(opt, store), calibrator(opt, store)
    made = [masks(opt, recipe, chosen, work) for work in (first, second)]
    assert (first.blocks.made, second.blocks.made, second.blocks.found) == (6, 0, 6)
    assert all(torch.equal(made[0][path].kept, made[1][path].kept) for path in made[0])
    assert {path: x.key for path, x in made[0].items()} == {path: x.key for path, x in made[1].items()}


def test_what_was_measured_for_a_quantizer_is_not_measured_again(opt: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    from blip2sweep.apply.calibration import part_inputs

    passes, measure, work = [], part_inputs.measure, calibrator(opt)
    monkeypatch.setattr(part_inputs, "measure", lambda *a: passes.append(a[1]) or measure(*a))
    chosen = samples(n=4, upstream="full")
    plain = sparse(opt.anatomy, "vit", 4, method="magnitude", quant_method="gptq").only("quantize")
    work(plain, chosen)
    masks(opt, sparse(opt.anatomy, "vit", ratio=0.3), chosen, work)
    masks(opt, sparse(opt.anatomy, "vit", ratio=0.6), chosen, work)
    assert passes == list(range(6))


def test_a_layer_that_was_not_measured_is_not_guessed(opt: Loaded) -> None:
    before = identities(opt)
    with pytest.raises(RuntimeError, match="wanda has not measured"):
        Patch(opt).apply(sparse(opt.anatomy, "vit"))
    assert identities(opt) == before


def test_a_layer_that_no_sample_reaches_is_named(opt: Loaded) -> None:
    part = opt.anatomy.parts["vit"]
    batches = CalibrationBatches(opt, samples(n=2)).batches(part.stage)
    runner, elsewhere = BlockRunner(opt.model, part, [b.run for b in batches]), part.linears[-1]
    with fails(f"{elsewhere.path}: no calibration sample reaches it; right: another calibration"):
        measure(runner, 0, [elsewhere], batches, opt.language, hessians=False)


def test_a_layer_off_the_device_is_refused(opt: Loaded) -> None:
    from blip2sweep.compression.sparsity.layer import exchange
    from blip2sweep.compression.sparsity.spec import Sparse
    from blip2sweep.compression.undo import Undo

    module = torch.nn.Linear(4, 4, device="meta")
    with Undo() as undo, pytest.raises(UserError, match=r"a\.b: left on meta or disk by model\.device_map"):
        exchange("a.b", module, Sparse("magnitude", ratio=0.5), undo)
