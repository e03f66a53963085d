"""AWQ as published against a model that is really folded, and what it does where other methods stand beside it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blip2sweep.apply.calibration.batches import CalibrationBatches, token_weights
from blip2sweep.apply.patch import Patch
from blip2sweep.compression.quantize import awq, installed, rtn
from blip2sweep.compression.quantize.activations import InputQuantizer
from blip2sweep.compression.quantize.prepared import Prepared
from blip2sweep.compression.quantize.scheme import Activations
from blip2sweep.compression.quantize.statistics import Statistics
from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import anatomy
from blip2sweep.models.load import Loaded, load
from blip2sweep.recipe import Recipe, resolve_recipe
from tests.apply.calibration.folding import fold
from tests.apply.calibration.test_calibration import calibrator, made, samples
from tests.checkpoints import TINY, recipe, tiny_config

BLOCK = "language_model.model.decoder.layers.0."
FOLDED = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "fc1", "fc2"}


@pytest.fixture(scope="module")
def opt() -> Loaded:
    return load(tiny_config(), TINY)


def really_folded(loaded: Loaded, prepared: dict[str, Prepared]) -> nn.Module:
    """Block 0 of the language model with its scales in what stands before each layer, in full precision."""
    block = loaded.model.get_submodule(BLOCK[:-1])
    for f in loaded.anatomy.parts["llm"].folds:
        s = prepared[BLOCK + f.into[0]].prescale
        assert s is not None
        fold(block.get_submodule(f.before), [block.get_submodule(n) for n in f.into], s, f.piece)
    return block


def block_outputs(loaded: Loaded) -> Tensor:
    """What block 0 of the language model puts out on a few questions."""
    found: list[Tensor] = []
    hook = loaded.model.get_submodule(BLOCK[:-1]).register_forward_hook(
        lambda m, args, out: found.append((out[0] if isinstance(out, tuple) else out).flatten())
    )
    for batch in CalibrationBatches(loaded, samples("vqa", 8)).batches("language"):
        batch.run()
    hook.remove()
    return torch.cat(found)


def test_with_quantized_inputs_a_cell_computes_what_the_folded_model_computes(opt: Loaded) -> None:
    """There a layer's input is x / s, so that is what is rounded. Asymmetric: symmetric grids have the largest input half-way
    between two codes, where float32 decides."""
    inputs = {"bits": 4, "symmetric": False}
    quant = recipe(opt.anatomy, "llm", "0", method="awq", clip=False, input=inputs)
    prepared = made(opt, quant)
    assert any((p.prescale != 1).any() for p in prepared.values() if p.prescale is not None)
    with Patch(opt).apply(quant, prepared):
        cell = block_outputs(opt)
    plain = {p: Prepared(x.key, x.weight, None, info=x.info, codes=x.codes) for p, x in prepared.items()}
    with Patch(opt).apply(quant, plain):  # the inputs as they come
        unfolded = block_outputs(opt)

    other = load(tiny_config(), TINY)
    block = really_folded(other, prepared)
    for path, scheme in quant.schemes.items():
        linear = block.get_submodule(path.removeprefix(BLOCK))
        linear.weight.data = rtn.quantize_dequantize(linear.weight.data, scheme.weights)
        linear.register_forward_pre_hook(InputQuantizer(Activations(4, symmetric=False)).hook)
    expected = block_outputs(other)
    assert (cell - expected).norm() < 0.01 * expected.norm()
    assert (unfolded - expected).norm() > 5 * (cell - expected).norm()


def test_static_ranges_are_those_of_the_folded_models_inputs(opt: Loaded) -> None:
    inputs = {"bits": 8, "strategy": "tensor", "dynamic": False}
    prepared = made(opt, recipe(opt.anatomy, "llm", "0", method="awq", input=inputs))
    other, seen = load(tiny_config(), TINY), dict[str, list[Tensor]]()
    block = really_folded(other, prepared)
    for name in FOLDED:
        block.get_submodule(name).register_forward_pre_hook(
            lambda m, args, name=name: seen.setdefault(name, []).append(args[0].flatten())
        )
    for batch in CalibrationBatches(other, samples()).batches("language"):
        batch.run()
    for name in FOLDED:
        x, layer = torch.cat(seen[name]), prepared[BLOCK + name]
        assert float(layer.low) == pytest.approx(float(x.min()), rel=1e-3, abs=1e-4)
        assert float(layer.high) == pytest.approx(float(x.max()), rel=1e-3, abs=1e-4)


# ---- one scale for queries, keys and values


def attention_errors(loaded: Loaded, quant: Recipe, weight: float) -> list[float]:
    """Of the attention's output, for each exponent: written a second time, with whole passes of the model."""
    chosen, linears = samples(n=24, image_token_weight=weight), loaded.anatomy.parts["llm"].linears
    readers = [x for x in linears if x.block == 0 and x.name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")]  # fmt: skip
    modules = [loaded.model.get_submodule(x.path) for x in readers]
    batches, attention = (
        CalibrationBatches(loaded, chosen).batches("language"),
        loaded.model.get_submodule(BLOCK + "self_attn"),
    )
    outputs: list[Tensor] = []
    statistics = Statistics(readers[0].in_features)
    at = {"batch": 0}

    def passes() -> list[Tensor]:
        outputs.clear()
        for at["batch"], batch in enumerate(batches):
            batch.run()
        return list(outputs)

    keep = attention.register_forward_hook(lambda m, args, out: outputs.append(out[0].flatten(0, -2)))
    see = modules[0].register_forward_pre_hook(
        lambda m, args: statistics.add(args[0], token_weights(loaded.language, readers[0], batches[at["batch"]]))
    )
    before = passes()
    see.remove()
    errors = []
    originals = [m.weight.data for m in modules]
    for k in range(20):
        s = awq.scale_at(statistics.mean_abs, k / 20)
        for m, w, x in zip(modules, originals, readers, strict=True):
            m.weight.data = awq.scaled(w, s, quant.schemes[x.path].weights)
        total = 0.0
        for y, x, batch in zip(before, passes(), batches, strict=True):
            tokens = (x - y).square().sum(-1)
            total += float(tokens.sum() if batch.weights is None else tokens @ batch.weights)
        errors.append(total)
    keep.remove()
    for m, w in zip(modules, originals, strict=True):
        m.weight.data = w
    return errors


@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_the_exponent_of_q_k_v_leaves_the_least_error_at_the_attentions_output(opt: Loaded, weight: float) -> None:
    quant = recipe(opt.anatomy, "llm", "0", method="awq", bits=4)
    info = made(opt, quant, samples(n=24, image_token_weight=weight))[BLOCK + "self_attn.q_proj"].info
    errors = attention_errors(opt, quant, weight)
    assert errors[round(20 * info["ratio"])] == pytest.approx(min(errors), rel=1e-3)


def test_what_image_tokens_weigh_changes_what_is_best_for_q_k_v(opt: Loaded) -> None:
    quant = recipe(opt.anatomy, "llm", "2", method="awq", bits=2)
    q = "language_model.model.decoder.layers.2.self_attn.q_proj"
    both, text = (made(opt, quant, samples(n=24, image_token_weight=w))[q].info["ratio"] for w in (1.0, 0.0))
    assert both != text


# ---- beside other methods


def mixed(loaded: Loaded, target: str, **knobs: Any) -> dict[str, str | None]:
    """{layer of block 0: the fold it took} where one of AWQ's neighbours gets another method."""
    rules = {"other": {"target": f"llm:all:{target}", **knobs}}
    config = {"part": "llm", "blocks": "0", "layers": "all", "quant": {"method": "awq", "bits": 3}, "rules": rules}
    found = made(loaded, resolve_recipe(config, loaded.anatomy))
    return {p.removeprefix(BLOCK): x.info["fold"] for p, x in found.items() if "fold" in x.info}


ALL = {"self_attn.q_proj": "self_attn_layer_norm", "self_attn.k_proj": "self_attn_layer_norm", "self_attn.v_proj": "self_attn_layer_norm", "self_attn.out_proj": "self_attn.v_proj", "fc1": "final_layer_norm", "fc2": "fc1"}  # fmt: skip


@pytest.mark.parametrize(
    ("target", "knobs", "lost"),
    [
        ("fc1", {"method": "rtn", "bits": 8}, set()),
        ("fc1", {"method": "rtn", "bits": 8, "strategy": "tensor"}, {"fc2"}),
        ("fc1", {"method": "minmax", "bits": 8}, {"fc2"}),
        ("fc1", {"method": "gptq", "bits": 8}, set()),
        ("v_proj", {"method": "rtn", "bits": 8}, {"self_attn.q_proj", "self_attn.k_proj"}),
        ("v_proj", {"method": "minmax", "bits": 8}, {"self_attn.q_proj", "self_attn.k_proj", "self_attn.out_proj"}),
        ("q_proj", {"bits": 8}, set()),
        ("v_proj", {"bits": "none"}, set()),
    ],
)
def test_a_fold_is_taken_only_where_every_neighbour_allows_it(
    opt: Loaded, target: str, knobs: dict[str, Any], lost: set[str]
) -> None:
    """Trap: only calibrated layers were looked at, so a tensor-wise or differently quantized neighbour counted as absent."""
    found = mixed(opt, target, **knobs)
    assert found == {name: None if name in lost else ALL[name] for name in found}
    assert len(found) == (6 if target == "q_proj" else 5)


@pytest.mark.skipif(not installed("hqq"), reason="hqq is an extra")
def test_hqq_does_not_absorb_a_scale(opt: Loaded) -> None:
    assert mixed(opt, "fc1", method="hqq", bits=4)["fc2"] is None


def test_a_neighbours_method_makes_another_block(opt: Loaded) -> None:
    """The kept block of one recipe is not taken for another, whose uncalibrated layers forbid the fold."""
    work, found = calibrator(opt), []
    for strategy in ("channel", "tensor"):
        rules = {"other": {"target": "llm:all:fc1", "method": "rtn", "strategy": strategy}}
        config = {"part": "llm", "blocks": "0", "layers": "all", "quant": {"method": "awq", "bits": 3}, "rules": rules}
        found.append(work(resolve_recipe(config, opt.anatomy), samples())[BLOCK + "fc2"].info["fold"])
    assert found == ["fc1", None]


# ---- exceptions of a model's own


def excepted(**fields: Any) -> dict[str, Any]:
    """The tiny model's config with another entry for fc1 of the language model."""
    config = copy.deepcopy(tiny_config())
    config["parts"]["llm"]["layers"]["mlp"]["fc1"].update(fields)
    return config


def test_a_layer_that_the_yaml_excepts_is_not_clipped(opt: Loaded) -> None:
    own = load(excepted(clip=False), TINY)
    clips = {}
    for loaded in (opt, own):
        found = made(loaded, recipe(loaded.anatomy, "llm", "0", method="awq"))
        clips[loaded is own] = {p.removeprefix(BLOCK): x.info["clip"] for p, x in found.items()}
    unclipped = {"self_attn.q_proj", "self_attn.k_proj"}
    assert clips[False] == {name: name not in unclipped for name in FOLDED}
    assert clips[True] == {name: name not in unclipped | {"fc1"} for name in FOLDED}
    prescaled = [made(x, recipe(x.anatomy, "llm", "0", "fc1", method="awq_prescale", clip=True)) for x in (opt, own)]
    assert [p[BLOCK + "fc1"].info["clip"] for p in prescaled] == [True, False]


def test_an_excepted_layer_makes_another_key_only_where_it_would_be_clipped() -> None:
    plain, own = anatomy(tiny_config()), anatomy(excepted(clip=False))
    hashes = {
        (method, clip): [recipe(a, "llm", method=method, clip=clip).hash for a in (plain, own)]
        for method in ("awq", "awq_prescale")
        for clip in (True, False)
    }
    assert {k: len(set(v)) for k, v in hashes.items()} == {
        ("awq", True): 2, ("awq", False): 1, ("awq_prescale", True): 2, ("awq_prescale", False): 1,
    }  # fmt: skip
    assert len({recipe(a, "llm", bits=4).hash for a in (plain, own)}) == 1


def test_clip_of_a_layer_is_a_flag() -> None:
    with pytest.raises(UserError, match=r"fc1\.clip=never; right: false"):
        anatomy(excepted(clip="never"))
