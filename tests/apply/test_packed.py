"""Packed kernels: they compute what the simulation says, take the bytes that are computed, and are put back."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from blip2sweep.apply import packed as packed_module
from blip2sweep.apply.packed import model_bytes, pack, packed_layers, split
from blip2sweep.apply.patch import Patch
from blip2sweep.backends.torch.latency import compared
from blip2sweep.compression.quantize import installed
from blip2sweep.compression.quantize.scheme import Activations, Scheme, Weights
from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import Anatomy, anatomy
from blip2sweep.models.load import Loaded, load
from blip2sweep.models.part import Linear
from blip2sweep.recipe.calibrated import check_packed
from blip2sweep.recipe.size import weight_bits
from blip2sweep.tasks import load_task
from tests.checkpoints import TINY, conf, recipe, t5_config, tiny_config, write_t5
from tests.composing import plan, recipes

SCHEMES = {
    "int8": Scheme(Weights("rtn", 8, symmetric=True, packed="cpu")),
    "w8a8": Scheme(Weights("rtn", 8, symmetric=True, packed="cpu"), Activations(8)),
    "float8": Scheme(Weights("float8", 8, type="float", packed="cpu")),
    "nf4": Scheme(Weights("nf4", 4, type="float", strategy="group", group_size=64, packed="cpu")),
    "fp4": Scheme(Weights("fp4", 4, type="float", strategy="group", group_size=64, packed="cpu")),
    "bnb": Scheme(Weights("int8", 8, packed="cpu")),
}
pytestmark = pytest.mark.skipif(
    not (installed("torchao") and installed("bitsandbytes")), reason="torchao and bitsandbytes are extras"
)


@pytest.fixture(scope="module")
def opt() -> Loaded:
    return load(tiny_config(), TINY)


def simulated(linear: nn.Linear, scheme: Scheme, x: torch.Tensor) -> torch.Tensor:
    from blip2sweep.compression.quantize.activations import InputQuantizer
    from blip2sweep.compression.quantize.layer import quantized

    own = copy.deepcopy(linear)
    own.weight.data = quantized("layer", linear, scheme)[0]
    return own(InputQuantizer(scheme.input_activations)(x) if scheme.input_activations else x)


@pytest.mark.parametrize("name", SCHEMES)
def test_a_packed_layer_computes_what_is_simulated(name: str) -> None:
    scheme = SCHEMES[name]
    linear, x = nn.Linear(128, 96).requires_grad_(False).eval(), torch.randn(20, 128)
    before = linear.weight.clone()
    found, expected = pack(linear, scheme)(x), simulated(linear, scheme, x)
    assert torch.equal(linear.weight, before)
    limit = 0.01 if name == "bnb" else 0.002  # LLM.int8() rounds its input as well
    assert (found - expected).norm() < limit * expected.norm()


@pytest.mark.parametrize("name", SCHEMES)
def test_packed_bytes_are_the_computed_ones(name: str) -> None:
    """bf16 weights, whose scales torchao keeps in 16 bits; float8's and bitsandbytes' have 32. torchao's int8 keeps zero
    points, though they are all zero: 3 bytes a row that are not counted."""
    linear = nn.Linear(128, 96, bias=False, dtype=torch.bfloat16).requires_grad_(False)
    layer = Linear("layer", "layer", "mlp", "blocks", 0, 96, 128, False)
    packed = pack(linear, SCHEMES[name])
    if name == "bnb":
        packed(torch.randn(2, 128, dtype=torch.bfloat16))  # it packs on the first call
    unused = 96 * 3 * 8 if name in ("int8", "w8a8") else 0
    assert model_bytes(packed) * 8 - unused == weight_bits(layer, SCHEMES[name], 16)


def test_originals_come_back_and_the_packed_model_is_smaller(opt: Loaded) -> None:
    modules = dict(opt.model.named_modules())
    _, packed = split(recipe(opt.anatomy, "llm", method="nf4", bits=4, packed="cpu"))
    plain = model_bytes(opt.model)
    with packed_layers(opt, packed):
        assert sum(m is not modules[n] for n, m in opt.model.named_modules() if n in packed.schemes) == 36
        assert model_bytes(opt.model) < plain - 0.8 * 4 * sum(x.weights for x, _ in packed.touched())
    assert all(m is modules[n] for n, m in opt.model.named_modules())


def test_packed_and_simulated_layers_go_together(opt: Loaded) -> None:
    from blip2sweep.recipe import resolve_recipe

    rules = {"a": {"target": "llm:all:mlp", "method": "nf4", "bits": 4, "packed": "cpu"}}
    config = {"part": "llm", "blocks": "all", "layers": "all", "quant": {"method": "rtn", "bits": 4}, "rules": rules}
    rest, packed = split(resolve_recipe(config, opt.anatomy))
    assert (len(rest.schemes), len(packed.schemes)) == (24, 12)
    with Patch(opt).apply(rest), packed_layers(opt, packed):
        pass


def test_it_is_measured_against_bf16_in_the_same_run(opt: Loaded) -> None:
    task = load_task({**conf("task/shapes_caption"), "limit": 4})
    job: dict[str, Any] = {
        "model": tiny_config(),
        "folder": str(TINY),
        "generation": {"prompt": None, "num_beams": 1, "max_new_tokens": 5},
    }
    _, packed = split(recipe(opt.anatomy, "llm", method="int8", bits=8, packed="cpu"))
    with packed_layers(opt, packed):
        found = compared(opt, job, task)
    for name in ("model_bytes_measured", "seconds_batch_1", "seconds_batch_largest"):
        assert found[name] > 0
        assert found[f"bf16_{name}"] > 0
    assert found["batch_largest"] == found["bf16_batch_largest"] == 4  # the real one, where there are fewer than 64


def test_another_device_than_the_planned_one_is_refused(opt: Loaded) -> None:
    _, packed = split(recipe(opt.anatomy, "llm", method="int8", bits=8, packed="cuda"))
    with pytest.raises(UserError, match=r"quant\.packed=cuda: .* this worker has cpu"), packed_layers(opt, packed):
        pass


@pytest.mark.parametrize(
    "words",
    [
        ["quant.bits=3", "quant.packed=cpu"],
        ["quant.bits=4", "quant.strategy=group", "quant.group_size=32", "quant.packed=cpu"],
        ["quant=gptq", "quant.packed=cuda"],
        ["quant.bits=4", "quant.strategy=group", "quant.group_size=16", "quant.packed=cuda"],
    ],
)
def test_what_has_no_kernel_is_refused_in_planning(words: list[str]) -> None:
    with pytest.raises(UserError, match=r"no packed kernel for .*; right: ", check=lambda e: "\n" not in str(e)):
        plan("part=llm", *words)


def test_packed_cells_are_cells_of_their_own() -> None:
    assert recipes("part=llm", "quant=nf4", "quant.packed=cpu") == [
        "llm:all:attention+fc1=nf4/channel/packed; llm:all:fc2=nf4/group64/packed"
    ]
    assert plan("part=llm", "quant=nf4").keys != plan("part=llm", "quant=nf4", "quant.packed=cpu").keys


# ---- what a kernel cannot take, held against the model in planning

BF16 = dict.fromkeys(("vit", "qformer", "llm"), "bfloat16")
INT4 = {"bits": 4, "strategy": "group", "packed": "cuda"}


@pytest.fixture(scope="module")
def released() -> Anatomy:
    return anatomy(conf("model/blip2-opt-2.7b"))


def test_int4_needs_groups_that_divide_the_row(released: Anatomy) -> None:
    """torchao leaves a weight alone whose rows a group does not divide, and only logs it."""
    check_packed(recipe(released, group_size=128, **INT4), BF16)
    with pytest.raises(UserError, match=r"has rows of 1408 in groups of 256; right: a quant.group_size"):
        check_packed(recipe(released, "vit", group_size=256, **INT4), BF16)


def test_int4_takes_a_row_as_long_as_its_group() -> None:
    tiny = anatomy(tiny_config())
    whole = recipe(tiny, "llm", layers="fc1", group_size=64, **INT4)
    assert {s.weights.strategy for s in whole.schemes.values()} == {"channel"}
    check_packed(whole, BF16)


def test_int4_needs_bfloat16() -> None:
    words = ["part=llm", "quant.bits=4", "quant.strategy=group", "quant.group_size=64", "quant.packed=cuda"]
    with pytest.raises(UserError, match=r"computes in bfloat16, and .* is float32; right: model.dtype=bfloat16"):
        plan(*words)
    assert plan(*words, "model.dtype=bfloat16").todo


@pytest.mark.parametrize(("scheme", "size"), [(Weights("rtn", 4, symmetric=False, packed="cpu"), 64), (Weights("rtn", 4, strategy="group", group_size=32, symmetric=False, packed="cpu"), 32)])  # fmt: skip
def test_int4_asks_torchao_for_the_schemes_groups(scheme: Weights, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def quantize(model: nn.Module, config: Any) -> None:
        asked.append(config)
        model[0].weight = nn.Parameter(torch.zeros(32, 64), requires_grad=False)

    monkeypatch.setattr("torchao.quantization.quantize_", quantize)
    linear = nn.Linear(64, 32, dtype=torch.bfloat16).requires_grad_(False)
    with pytest.raises(RuntimeError, match=r"left a weight \(32, 64\) unquantized"):
        pack(linear, Scheme(scheme))
    assert asked[0].group_size == size


def test_t5s_output_layer_takes_no_four_bit_codes() -> None:
    t5 = anatomy(conf("model/blip2-flan-t5-xl"))
    nf4 = {"method": "nf4", "bits": 4, "packed": "cpu"}
    with pytest.raises(UserError, match=r"wo to the type of its 4-bit codes; right: keep=llm:all:wo"):
        check_packed(recipe(t5, "llm", **nf4), BF16)
    check_packed(recipe(t5, "llm", layers="attention", **nf4), BF16)
    check_packed(recipe(t5, "llm", method="int8", bits=8, packed="cpu"), BF16)


@pytest.mark.thorough
def test_t5_runs_with_int8_everywhere(tmp_path: Path) -> None:
    loaded = load(t5_config(), write_t5(tmp_path))
    job = {"model": t5_config(), "folder": str(tmp_path), "generation": {"prompt": None, "num_beams": 1, "max_new_tokens": 3}}  # fmt: skip
    _, packed = split(recipe(loaded.anatomy, "llm", method="int8", bits=8, packed="cpu"))
    with packed_layers(loaded, packed):
        assert compared(loaded, job, load_task({**conf("task/shapes_caption"), "limit": 2}))["batch_largest"] == 2


# ---- LLM.int8()


def test_outliers_of_the_input_are_not_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its decomposition: columns with inputs from 6 on are multiplied in 16 bits."""
    linear, x = nn.Linear(128, 96).requires_grad_(False).eval(), torch.randn(20, 128)
    x[:, 5] *= 100
    expected = simulated(linear, SCHEMES["bnb"], x)
    found = (pack(linear, SCHEMES["bnb"])(x) - expected).norm()
    monkeypatch.setattr(packed_module, "OUTLIERS", 0.0)
    rounded = (pack(linear, SCHEMES["bnb"])(x) - expected).norm()
    assert found < 0.005 * expected.norm()
    assert rounded > 5 * found


def test_the_simulation_has_the_packed_layers_weights() -> None:
    linear = nn.Linear(128, 96).requires_grad_(False)
    layer = pack(linear, SCHEMES["bnb"])
    layer(torch.randn(2, 128))
    values = layer.weight.data.float() * layer.state.SCB[:, None] / 127
    from blip2sweep.compression.quantize.layer import quantized

    assert torch.allclose(quantized("layer", linear, SCHEMES["bnb"])[0], values, rtol=1e-6, atol=1e-9)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="peak memory is a GPU's")
def test_the_peak_is_the_models_and_the_runs() -> None:
    loaded = load(tiny_config(dtype="bfloat16"), TINY, device="cuda")
    job = {"model": tiny_config(), "folder": str(TINY), "generation": {"prompt": None, "num_beams": 1, "max_new_tokens": 3}}  # fmt: skip
    ballast = torch.zeros(10**8, device="cuda")  # what earlier cells left is not counted
    _, packed = split(recipe(loaded.anatomy, "llm", method="nf4", bits=4, packed="cuda"))
    with packed_layers(loaded, packed):
        found = compared(loaded, job, load_task({**conf("task/shapes_caption"), "limit": 8}))
    assert found["model_bytes_measured"] < found["peak_bytes"] < ballast.nbytes
    assert found["model_bytes_measured"] < found["bf16_model_bytes_measured"] < found["bf16_peak_bytes"]
