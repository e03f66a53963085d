"""Calibration through the model: what layers are shown, what is changed, what is shared, what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from blip2sweep.apply.calibration import Blocks, Calibrator, part_inputs, summary, warn_short
from blip2sweep.apply.calibration.batches import CalibrationBatches
from blip2sweep.apply.calibration.blocks_run import BlockRunner
from blip2sweep.apply.calibration.measure import measure
from blip2sweep.apply.patch import Patch
from blip2sweep.cache.disk import Store
from blip2sweep.cache.tensors import Memo
from blip2sweep.compression.quantize import METHODS, rtn
from blip2sweep.compression.quantize.prepared import Prepared
from blip2sweep.compression.quantize.statistics import relative_error
from blip2sweep.errors import UserError
from blip2sweep.models.load import Loaded, load
from blip2sweep.models.ragged import Rows
from blip2sweep.recipe import Recipe
from blip2sweep.tasks import load_task
from blip2sweep.tasks.calibration import Calibration, choose
from tests.apply.calibration.folding import fold
from tests.checkpoints import TINY, conf, recipe, t5_config, tiny_config, write_t5
from tests.composing import plan

pytestmark = pytest.mark.thorough

CALIBRATED = ["gptq", "awq", "awq_prescale", "smoothquant"]


@pytest.fixture(scope="module")
def opt() -> Loaded:
    return load(tiny_config(), TINY)


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load(t5_config(), write_t5(tmp_path_factory.mktemp("t5")))


@pytest.fixture(params=["opt", "t5"])
def loaded(request: pytest.FixtureRequest) -> Iterator[Loaded]:
    """Both families; whatever a test does, the weights are afterwards what they were, and the very same storages."""
    model: Loaded = request.getfixturevalue(request.param)
    before = {n: (p.data_ptr(), p.clone()) for n, p in model.model.named_parameters()}
    yield model
    for name, p in model.model.named_parameters():
        assert p.data_ptr() == before[name][0]
        assert torch.equal(p, before[name][1])
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.model.modules())


def samples(kind: str = "caption", n: int = 24, **fields: Any) -> Calibration:
    task = {**conf(f"task/shapes_{'vqa' if kind == 'vqa' else 'caption'}"), "split": "train2014"}
    prompt = "Question: {} Answer:" if kind == "vqa" else None
    plain = {"upstream": "part", "image_token_weight": 1.0, "text_only": False, "prompt": prompt, "seed": 0}
    return Calibration(task, choose(load_task(task), n, 0), "test", n, **{**plain, **fields})


def calibrator(loaded: Loaded, store: Store | None = None) -> Calibrator:
    memo = Memo(torch.device("cpu"), 0, 10**9)
    return Calibrator(loaded, "test", memo, Blocks(memo, store))


def made(loaded: Loaded, quant: Recipe, chosen: Calibration | None = None) -> dict[str, Prepared]:
    return calibrator(loaded)(quant, chosen or samples())


# ---- the set of layers changed is the recipe's


@pytest.mark.parametrize("method", CALIBRATED)
@pytest.mark.parametrize("kind", ["caption", "vqa"])
def test_every_method_changes_exactly_the_recipes_layers(loaded: Loaded, method: str, kind: str) -> None:
    patch = Patch(loaded)
    for part in ("vit", "qformer", "llm", "all"):
        quant = recipe(loaded.anatomy, part, method=method)
        prepared = made(loaded, quant, samples(kind, 8))
        applied = patch.apply(quant, prepared)
        assert set(applied.layers) == set(quant.schemes) == set(prepared)
        assert applied.layers_changed == len(quant.schemes)
        patch.restore()


@pytest.mark.parametrize("method", ["minmax", "rtn", "mse", "hqq", "nf4", "fp4", "int8", "float8"])
def test_so_does_every_method_that_sees_weights_alone(loaded: Loaded, method: str) -> None:
    if METHODS[method].missing or (method in ("nf4", "fp4") and {"opt": False, "t5": True}[loaded.family]):
        pytest.skip("an extra, or rows of 48 that its blocks do not divide")
    quant = recipe(loaded.anatomy, method=method, bits=4 if METHODS[method].has_bits(4) else 8)
    with Patch(loaded).apply(quant) as applied:
        assert set(applied.layers) == set(quant.schemes)
        assert applied.layers_changed == len(quant.schemes)


@pytest.mark.parametrize("method", ["nf4", "fp4"])
def test_four_bit_codes_of_t5s_layers_whose_rows_they_divide(t5: Loaded, method: str) -> None:
    if METHODS[method].missing:
        pytest.skip("an extra")
    quant = recipe(t5.anatomy, "llm", layers="attention+crossattention+wi_0+wi_1", method=method, bits=4)
    with Patch(t5).apply(quant) as applied:
        assert set(applied.layers) == set(quant.schemes)
        assert applied.layers_changed == len(quant.schemes) == 2 * 6 + 2 * 10
        for path in applied.layers:
            assert all(len(row.unique()) <= 16 for row in t5.model.get_submodule(path).weight)
    with pytest.raises(UserError, match=r"wo has rows of 48"):
        recipe(t5.anatomy, "llm", method=method, bits=4)


def test_a_mixed_recipe_calibrates_what_it_must(opt: Loaded) -> None:
    from blip2sweep.recipe import resolve_recipe

    rules = {"a": {"target": "llm:all:mlp", "method": "gptq"}}
    quant = resolve_recipe(
        {"part": "llm", "blocks": "0-2", "layers": "all", "quant": {"method": "rtn", "bits": 3}, "rules": rules},
        opt.anatomy,
    )
    assert {path.rsplit(".", 1)[-1] for path in made(opt, quant)} == {"fc1", "fc2"}


# ---- what layers are shown


def naive(loaded: Loaded, part: str, chosen: Calibration) -> dict[str, Tensor]:
    """Second moments by whole forward passes with a hook on every layer."""
    sums: dict[str, Tensor] = {}
    hooks = []
    for x in loaded.anatomy.parts[part].linears:

        def see(module: Any, args: Any, path: str = x.path) -> None:
            rows = args[0].reshape(-1, args[0].shape[-1]).float()
            sums[path] = sums.get(path, 0) + rows.T @ rows

        hooks.append(loaded.model.get_submodule(x.path).register_forward_pre_hook(see))
    for batch in CalibrationBatches(loaded, chosen).batches(loaded.anatomy.parts[part].stage):
        batch.run()
    for hook in hooks:
        hook.remove()
    return sums


@pytest.mark.parametrize("part", ["vit", "qformer", "llm"])
def test_block_by_block_sees_what_whole_passes_see(loaded: Loaded, part: str) -> None:
    chosen, expected = samples("vqa", 12), naive(loaded, part, samples("vqa", 12))
    shape = loaded.anatomy.parts[part]
    batches = CalibrationBatches(loaded, chosen).batches(shape.stage)
    runner = BlockRunner(loaded.model, shape, [b.run for b in batches])
    for block in range(shape.n_blocks):
        layers = [x for x in shape.linears if x.block == block]
        for path, found in measure(runner, block, layers, batches, loaded.language, True).items():
            assert torch.allclose(found.sums.hessian, expected[path], rtol=1e-4, atol=1e-3), path


def test_pictures_and_texts_reach_the_language_model_as_in_use(opt: Loaded) -> None:
    chosen = samples("vqa", 6)
    batches = CalibrationBatches(opt, chosen).batches("language")
    tokens = CalibrationBatches(opt, chosen)._texts
    runner = BlockRunner(opt.model, opt.anatomy.parts["llm"], [b.run for b in batches])
    layer = opt.anatomy.parts["llm"].linears[0]
    found = measure(runner, 0, [layer], batches, opt.language, True)[layer.path]
    assert found.sums.tokens == sum(12 + len(p) + len(r) - 1 for p, r in zip(*tokens, strict=True))


def test_the_weight_of_image_tokens(loaded: Loaded) -> None:
    """At 0 only text counts; a T5 decoder's own stream has no pictures in it."""
    quant = recipe(loaded.anatomy, "llm", "0", method="gptq", bits=4)
    both, text = (made(loaded, quant, samples(n=8, image_token_weight=w)) for w in (1.0, 0.0))
    for path, layer in both.items():
        assert text[path].info["tokens"] == layer.info["tokens"] - 8 * 12


def test_text_only_leaves_the_pictures_out(loaded: Loaded) -> None:
    quant = recipe(loaded.anatomy, "llm", "0", method="gptq", bits=4)
    text, none = (
        made(loaded, quant, samples(n=8, text_only=True)),
        made(loaded, quant, samples(n=8, image_token_weight=0.0)),
    )
    assert {p: x.info["tokens"] for p, x in text.items()} == {p: x.info["tokens"] for p, x in none.items()}


def test_upstream_says_what_stands_before_a_layer(opt: Loaded) -> None:
    quant = recipe(opt.anatomy, "vit+qformer", method="gptq", bits=3)
    full, part, model = (made(opt, quant, samples(upstream=u)) for u in ("full", "part", "model"))
    vit = [p for p in full if p.startswith("vision")]
    first, later = [p for p in vit if ".0." in p], [p for p in vit if ".5." in p]
    bridge = [p for p in full if p.startswith("qformer.encoder.layer.0.crossattention.attention.key")]
    same: Callable[[Any, Any, str], bool] = lambda a, b, p: torch.equal(*(x[p].values(torch.float32) for x in (a, b)))  # noqa: E731
    assert all(same(full, part, p) and same(part, model, p) for p in first)
    assert not any(same(full, part, p) for p in later)
    assert all(same(part, model, p) for p in vit)
    assert all(same(full, part, p) and not same(part, model, p) for p in bridge)


def test_upstream_part_measures_behind_the_quantized_blocks(opt: Loaded) -> None:
    """Block 1's inputs are those of a model whose block 0 is quantized, as evaluated."""
    quant = recipe(opt.anatomy, "vit", "0-1", method="gptq", bits=2)
    prepared, chosen = made(opt, quant), samples()
    with Patch(opt).apply(recipe(opt.anatomy, "vit", "0", method="gptq", bits=2), prepared):
        expected = naive(opt, "vit", chosen)
    path = "vision_model.encoder.layers.1.mlp.fc2"
    w = opt.model.get_submodule(path).weight.detach()
    assert prepared[path].info["error"] == pytest.approx(
        relative_error(prepared[path].values(torch.float32), w, expected[path]), rel=1e-3
    )


# ---- better than rounding


@pytest.mark.parametrize("bits", [3, 4])
@pytest.mark.parametrize("method", ["gptq", "awq_prescale"])
def test_layer_errors_are_below_rtns_on_every_layer_of_the_tiny_model(opt: Loaded, method: str, bits: int) -> None:
    quant, chosen = recipe(opt.anatomy, method=method, bits=bits), samples(upstream="full", n=64)
    prepared = made(opt, quant, chosen)
    for part in opt.anatomy.parts:
        hessians = naive(opt, part, chosen)
        for x, scheme in quant.parts[part].touched():
            path = x.path
            w = opt.model.get_submodule(path).weight.detach()
            plain = relative_error(rtn.quantize_dequantize(w, scheme.weights), w, hessians[path])
            error = relative_error(prepared[path].values(torch.float32), w, hessians[path])
            assert error < plain if method == "gptq" else error <= plain * 1.0001, path
            assert prepared[path].info["error"] == pytest.approx(error, rel=1e-2, abs=1e-4)


# ---- folds


def outputs(loaded: Loaded, part: str) -> Tensor:
    calibration_batches = CalibrationBatches(loaded, samples("vqa", 6))
    if part == "vit":
        return loaded.images[0].run(calibration_batches.pixels).values
    found = [b.run() for b in calibration_batches.batches(loaded.anatomy.parts[part].stage)]
    states = [x.values if isinstance(x, Rows) else x[0] for x in found]
    return torch.cat([x.flatten() for x in states])


@pytest.mark.parametrize("part", ["vit", "qformer", "llm"])
def test_folds_leave_the_full_precision_function_unchanged(loaded: Loaded, part: str) -> None:
    """Traps: a fold across GELU, a fold into what feeds the residual too, a fold that forgets a bias."""
    before = outputs(loaded, part)
    originals = {n: p.detach().clone() for n, p in loaded.model.named_parameters()}
    shape, folds = loaded.anatomy.parts[part], 0
    for stack in shape.stacks:
        for block in range(stack.n):
            module = loaded.model.get_submodule(f"{stack.path}.{block}")
            for f in (f for f in shape.folds if not f.stacks or stack.name in f.stacks):
                names = [n for n, _ in module.named_modules()]
                if all(n in names for n in f.into):
                    into = [module.get_submodule(n) for n in f.into]
                    fold(module.get_submodule(f.before), into, torch.rand(into[0].in_features) + 0.5, f.piece)
                    folds += 1
    after = outputs(loaded, part)
    for name, p in loaded.model.named_parameters():
        p.data.copy_(originals[name])
    assert folds >= 9
    assert (after - before).abs().max() <= 1e-5 * before.abs().max()


def test_awq_shares_one_scale_over_what_reads_one_tensor(opt: Loaded) -> None:
    prepared = made(opt, recipe(opt.anatomy, "llm", "0", method="awq"))
    block = "language_model.model.decoder.layers.0."
    read = [prepared[f"{block}self_attn.{x}_proj"].info for x in "qkv"]
    assert len({i["ratio"] for i in read}) == 1
    assert {i["fold"] for i in read} == {"self_attn_layer_norm"}
    assert [i["clip"] for i in read] == [False, False, True]  # queries and keys are not clipped
    assert prepared[f"{block}fc2"].info["fold"] == "fc1"


def test_awq_scales_nothing_that_cannot_be_folded(opt: Loaded) -> None:
    prepared = made(opt, recipe(opt.anatomy, "vit+qformer", "0", method="awq"))
    told = {path.split(".", 4)[-1]: p.info for path, p in prepared.items()}
    alone = {name for name, info in told.items() if info["fold"] is None}
    assert "mlp.fc2" in alone  # GELU stands before it
    assert {"intermediate_query.dense", "attention.attention.query"} <= alone  # post-LN
    assert all(told[name]["ratio"] == 0 for name in alone)


# ---- sharing


def test_widths_and_group_sizes_share_one_pass(opt: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    monkeypatch.setattr(part_inputs, "measure", lambda *a: passes.append(a[1]) or measure(*a))
    work, chosen = calibrator(opt), samples(n=8, upstream="full")
    for bits in (2, 3, 4):
        work(recipe(opt.anatomy, "qformer", method="gptq", bits=bits), chosen)
    work(recipe(opt.anatomy, "qformer", method="awq_prescale", bits=4, strategy="group", group_size=32), chosen)
    assert passes == list(range(6))


def test_quantized_blocks_are_kept_on_disk_and_computed_once(opt: Loaded, tmp_path: Path) -> None:
    store, chosen = Store(tmp_path, 10**8), samples(n=8)
    first, second = calibrator(opt, store), calibrator(opt, store)
    quant = recipe(opt.anatomy, "llm", method="gptq")
    one, other = first(quant, chosen), second(quant, chosen)
    assert (first.blocks.made, second.blocks.made, second.blocks.found) == (6, 0, 6)
    assert all(
        torch.equal(*(x[p].values(torch.float32) for x in (one, other))) and one[p].info == other[p].info for p in one
    )
    third = calibrator(opt, store)
    third(recipe(opt.anatomy, "llm", "0-3", method="gptq"), chosen)  # the same up to block 3
    assert (third.blocks.made, third.blocks.found) == (0, 4)


def test_static_ranges_come_from_the_samples(opt: Loaded) -> None:
    quant = recipe(opt.anatomy, "llm", "0", bits=8, input={"bits": 8, "strategy": "tensor", "dynamic": False})
    prepared = made(opt, quant)
    assert all(not p.has_weight and p.low < p.high for p in prepared.values())
    with Patch(opt).apply(quant, prepared) as applied:
        assert len(applied.layers) == 6


# ---- recorded, warned, refused


def test_tokens_rank_and_damping_are_recorded(opt: Loaded) -> None:
    prepared = made(opt, recipe(opt.anatomy, "qformer", "0", method="gptq"), samples(n=8))
    info = prepared["qformer.encoder.layer.0.attention.attention.query"].info
    assert info["tokens"] == 8 * 12
    assert 0 < info["rank"] <= 64
    assert info["damp"] == 0.01
    assert summary(prepared)["calibration_tokens"] == 96
    with pytest.warns(UserWarning, match=r"12 of 12 layers|fewer tokens than 4 times.*n_samples"):
        warn_short(prepared)


def test_a_layer_whose_inputs_are_not_finite_is_named(opt: Loaded) -> None:
    norm = opt.model.vision_model.encoder.layers[2].layer_norm2
    bias = norm.bias.data
    norm.bias.data = torch.full_like(bias, float("inf"))
    with pytest.raises(FloatingPointError, match=r"layers\.2\.mlp\.fc1: its inputs are not finite"):
        made(opt, recipe(opt.anatomy, "vit", method="gptq"))
    norm.bias.data = bias


def test_out_of_memory_says_which_knob_to_turn(opt: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(part_inputs, "measure", full)
    with pytest.raises(MemoryError, match=r"calibration\.n_samples"):
        made(opt, recipe(opt.anatomy, "vit", method="gptq"))


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["calibration.n_samples=0"], r"calibration\.n_samples=0: right"),
        (["calibration.n_samples=9999"], r"has 256; right"),
        (["calibration.upstream=none"], "part, full, model"),
        (["calibration.split=val2014"], r"500 of its images are evaluated"),
        (["calibration=text"], r"has no images, which vit needs"),
        (["calibration.image_token_weight=-1"], "image_token_weight"),
        (["task.train_split=null"], "names no train_split"),
        (["task.train_split=train2017"], r"^task\.train_split=train2017: no annotation file"),
        (["task.train_split=karpathy_train"], r"^task\.train_split=karpathy_train: .*dataset_coco\.json"),
        (["calibration.split=nope2017"], r"^calibration\.split=nope2017: no annotation file"),
    ],
)
def test_bad_calibrations_are_refused_in_planning(words: list[str], match: str) -> None:
    with pytest.raises(UserError, match=match, check=lambda e: "\n" not in str(e)):
        plan("quant=gptq", "part=vit", *words)


def test_calibration_counts_where_a_method_calibrates_and_nowhere_else() -> None:
    seeds = plan("quant=rtn,gptq", "part=vit", "calibration.seed=0,1")
    assert seeds.keys[0] == seeds.keys[1]
    assert seeds.keys[2] != seeds.keys[3]
    assert plan("quant=gptq", "part=vit", "calibration=shapes_caption").keys == [seeds.keys[2]]
    with pytest.raises(UserError, match=r"calibration\.seed=1: used by no cell"):
        plan("part=vit", "calibration.seed=1")
    with pytest.raises(UserError, match=r"image_token_weight=2: used by no cell"):
        plan("quant=gptq", "part=vit", "calibration.image_token_weight=2")


def test_upstream_model_depends_on_the_parts_before(opt: Loaded) -> None:
    def digest(*words: str) -> str | None:
        cell = next(c for c in plan("quant=gptq", *words).cells.values() if not c.recipe.empty)
        return cell.recipe.parts["llm"].layers[0][1].weights.calibration

    alone, behind = ("part=llm",), ("part=vit+llm",)
    assert digest(*alone) == digest(*behind)
    assert digest(*alone, "calibration.upstream=model") != digest(*behind, "calibration.upstream=model")


def test_a_larger_draw_holds_the_smaller() -> None:
    few, many = samples(n=8).data.samples, samples(n=16).data.samples
    assert many[:8] == few
