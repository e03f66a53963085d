"""Methods against libraries: the same integers as torchao's RTN, the same round trips as hqq, bitsandbytes and torchao."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from blip2sweep.compression.quantize import METHODS, activations, installed, rtn, smoothquant
from blip2sweep.compression.quantize.activations import InputQuantizer
from blip2sweep.compression.quantize.codes import dequantize
from blip2sweep.compression.quantize.scheme import Activations, Weights
from blip2sweep.compression.quantize.step import from_entry
from blip2sweep.errors import UserError
from tests.composing import plan
from tests.compression.quantize.test_methods import tensors

SEEDS = st.integers(0, 2**31)


def weight(seed: int = 0, out: int = 96, inn: int = 128) -> Tensor:
    return torch.randn(out, inn, generator=torch.Generator().manual_seed(seed)) / inn**0.5


def applied(method: str, w: Tensor, **knobs: Any) -> Tensor:
    module = importlib.import_module(f"blip2sweep.compression.quantize.{method}")
    weights = Weights(method, **knobs)
    return dequantize(module.codes(w, weights)) if hasattr(module, "codes") else module.apply(w, None, weights)[0]


# ---- torchao


@given(SEEDS, st.integers(1, 8), st.booleans(), st.sampled_from(["channel", "group"]))
@settings(max_examples=60, deadline=None)
def test_the_integers_are_torchaos(seed: int, bits: int, symmetric: bool, strategy: str) -> None:
    primitives = pytest.importorskip("torchao.quantization.quant_primitives")
    w, size = weight(seed, 24, 96), 96 if strategy == "channel" else 32
    mapping = primitives.MappingType.SYMMETRIC if symmetric else primitives.MappingType.ASYMMETRIC
    least, most = rtn.code_range(bits, symmetric)
    scale, zero = primitives.choose_qparams_affine(
        w, mapping, (1, size), torch.int32, least, most, scale_dtype=torch.float32, zero_point_dtype=torch.int32
    )
    codes = primitives.quantize_affine(w, (1, size), scale, zero, torch.int32, least, most)
    rows = w.reshape(-1, size)
    ours = rtn.quantize(rows, bits, symmetric)
    assert torch.equal(ours.codes.reshape(w.shape).int(), codes)
    assert torch.equal(ours.scale.flatten(), scale.flatten())
    back = primitives.dequantize_affine(codes, (1, size), scale, zero, torch.int32, least, most)
    found = applied("rtn", w, num_bits=bits, strategy=strategy, group_size=size, symmetric=symmetric)
    assert torch.allclose(found, back, rtol=0, atol=1e-7)


@pytest.mark.parametrize("strategy", ["channel", "tensor"])
def test_float8_is_torchaos(strategy: str) -> None:
    quantization = pytest.importorskip("torchao.quantization")
    w = weight()
    linear = nn.Linear(128, 96, bias=False)
    linear.weight.data = w.clone()
    found = applied("float8", w, num_bits=8, strategy=strategy)
    if strategy == "channel":
        quantization.quantize_(linear, quantization.Float8WeightOnlyConfig())
        assert torch.equal(linear.weight.dequantize(), found)
    scale = (w.abs().amax(-1, keepdim=True) if strategy == "channel" else w.abs().amax()) / 448
    assert torch.allclose((w / scale).to(torch.float8_e4m3fn).float() * scale, found, atol=1e-6)


def test_dynamic_w8a8_is_torchaos() -> None:
    quantization = pytest.importorskip("torchao.quantization")
    linear, x = nn.Linear(128, 96), torch.randn(40, 128)
    linear.weight.data = weight()
    w = applied("rtn", linear.weight.detach(), num_bits=8, symmetric=True)
    ours = nn.functional.linear(InputQuantizer(Activations(8))(x), w, linear.bias).detach()
    exact = linear(x).detach()
    quantization.quantize_(linear, quantization.Int8DynamicActivationInt8WeightConfig())
    theirs = linear(x).detach()
    assert (ours - theirs).norm() < 0.1 * (theirs - exact).norm()
    assert torch.equal(linear.weight.dequantize(), w)


def test_smoothquants_scale_is_torchaos() -> None:
    pytest.importorskip("torchao.prototype.smoothquant")
    core = pytest.importorskip("torchao.prototype.smoothquant.core")
    w, x = weight(), torch.randn(64, 128) * torch.linspace(0.1, 10, 128)
    observer = core.SmoothQuantObserver(w, alpha=0.5)
    observer(x)
    factor = observer.calculate_qparams()
    factor = factor[0] if isinstance(factor, tuple) else factor
    ours = smoothquant.smoothing(x.abs().amax(0), w, 0.5)
    assert torch.allclose(factor.float(), ours, rtol=1e-3) or torch.allclose(1 / factor.float(), ours, rtol=1e-3)


# ---- hqq


@pytest.mark.parametrize("bits", [b for b in METHODS["hqq"].bits if b > 1])
@pytest.mark.parametrize("size", [None, 32])
def test_hqq_is_the_librarys_own_layer(bits: int, size: int | None) -> None:
    core = pytest.importorskip("hqq.core.quantize")
    if bits == 3 and size is None:
        pytest.skip("the library cannot pack 3 bits without groups; its unpacked codes are used here")
    linear = nn.Linear(128, 96)
    linear.weight.data = weight()
    config = core.BaseQuantizeConfig(nbits=bits, group_size=size, axis=1)
    theirs = core.HQQLinear(linear, config, compute_dtype=torch.float32, device="cpu", del_orig=False).dequantize()
    strategy = "channel" if size is None else "group"
    assert torch.equal(applied("hqq", weight(), num_bits=bits, strategy=strategy, group_size=size), theirs)


# ---- bitsandbytes


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("size", [32, 64, 128])
def test_four_bits_are_bitsandbytes_own_layer(kind: str, size: int) -> None:
    library = pytest.importorskip("bitsandbytes")
    layer = library.nn.Params4bit(
        weight(), requires_grad=False, quant_type=kind, blocksize=size, compress_statistics=False
    )
    packed = layer.to("cpu")
    theirs = library.functional.dequantize_4bit(packed.data, packed.quant_state)
    found = applied(kind, weight(), num_bits=4, strategy="group", group_size=size)
    assert torch.equal(found, theirs.float())
    assert all(len(row.unique()) <= 16 for row in found.reshape(-1, size))


def test_int8_is_bitsandbytes_own() -> None:
    library = pytest.importorskip("bitsandbytes")
    w = weight()
    codes, scale, _ = library.functional.int8_vectorwise_quant(w.half())  # a GPU takes nothing else
    found = applied("int8", w, num_bits=8)
    assert torch.allclose(found, codes.float() * scale[:, None] / 127, atol=1e-7)
    assert ((found - w).abs() <= w.abs().amax(-1, keepdim=True) * (1 / 254 + 1 / 1024)).all()


# ---- properties of them all


@pytest.mark.parametrize("method", ["mse", "hqq", "nf4", "fp4", "int8", "float8"])
@pytest.mark.parametrize("kind", ["zero", "constant", "huge", "tiny", "zero row", "normal"])
def test_no_weight_gives_nan(method: str, kind: str) -> None:
    if METHODS[method].missing:
        pytest.skip(f"{METHODS[method].extra} is not installed")
    w = weight()
    w = {"zero": w * 0, "constant": w * 0 + 0.3, "huge": w * 1e30, "tiny": w * 1e-30, "normal": w}.get(kind, w)
    if kind == "zero row":
        w[3] = 0
    defaults = {k: v for k, v in METHODS[method].options.items() if k != "group_size"}
    bits = 4 if METHODS[method].has_bits(4) else 8
    found = applied(method, w.clone(), num_bits=bits, strategy="group", group_size=64, **defaults)
    assert found.shape == w.shape
    assert found.isfinite().all()
    assert (found - w).norm() <= 0.5 * w.norm() + 1e-6
    if kind in ("zero", "zero row"):
        assert (found[3] == 0).all()


@given(tensors(), st.integers(1, 8), st.booleans())
@settings(max_examples=40, deadline=None)
def test_mse_is_never_worse_than_rtn_in_its_own_norm(x: Tensor, bits: int, symmetric: bool) -> None:
    knobs = {"num_bits": bits, "symmetric": symmetric}
    plain, clipped = applied("rtn", x, **knobs), applied("mse", x, **knobs, grid=20, norm=2.4)
    unit = x.abs().amax(-1, keepdim=True).clamp(min=1e-30)
    errors = [((y - x).abs().double() / unit).pow(2.4).sum(-1) for y in (clipped, plain)]
    assert (errors[0] <= errors[1] * (1 + 1e-5) + 1e-9).all()


@given(SEEDS, st.sampled_from(["mse", "nf4", "fp4", "int8", "float8"]))
@settings(max_examples=40, deadline=None)
def test_quantizing_again_changes_nothing(seed: int, method: str) -> None:
    """Where the largest weight of a range stays what it is; symmetric integers: test_methods.py."""
    if METHODS[method].missing:
        return
    knobs = {"mse": {"num_bits": 3, "symmetric": False, "grid": 20, "norm": 2.4}}.get(
        method, {"num_bits": METHODS[method].bits[0]}
    )
    once = applied(method, weight(seed, 8, 64), **knobs)
    assert torch.allclose(applied(method, once, **knobs), once, rtol=1e-3, atol=1e-6)


@given(tensors(), st.integers(2, 8), st.booleans(), st.sampled_from(["token", "tensor"]))
@settings(max_examples=60, deadline=None)
def test_activations_stay_within_half_a_step(x: Tensor, bits: int, symmetric: bool, strategy: str) -> None:
    static = (x.amin(), x.amax()) if strategy == "tensor" else (None, None)
    activations = Activations(bits, strategy=strategy, symmetric=symmetric, dynamic=strategy == "token")
    y = InputQuantizer(activations, None, *static)(x)
    rows = x if strategy == "token" else x.reshape(1, -1)
    low, high = rows.amin(-1, keepdim=True).clamp(max=0), rows.amax(-1, keepdim=True).clamp(min=0)
    step = (2 * (-low).maximum(high) if symmetric else high - low) / (2**bits - 1)
    assert ((y.reshape(rows.shape) - rows).abs() <= step * 0.501 + 1e-6 * rows.abs().amax() + 2e-7).all()
    assert y.dtype == x.dtype


def test_a_static_range_clamps() -> None:
    quantizer = InputQuantizer(
        Activations(8, strategy="tensor", dynamic=False), None, torch.tensor(-1.0), torch.tensor(1.0)
    )
    assert quantizer(torch.tensor([5.0, -5.0, 0.5])).tolist() == pytest.approx([1, -1, 0.5], abs=0.01)
    assert activations.rounded(torch.zeros(3), torch.zeros(1), torch.zeros(1), 8, True).tolist() == [0, 0, 0]


# ---- planning


def test_an_absent_library_is_one_line_that_names_the_extra(without_libraries: None) -> None:
    with pytest.raises(UserError, match=r"quant\.method=hqq: needs hqq.*pip install 'blip2sweep\[hqq\]'"):
        plan("quant=hqq", "part=vit", "quant.bits=5")


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["quant=nf4", "quant.bits=3"], r"quant\.bits=3: nf4 has no such width; right: 4"),
        (["quant=gptq", "quant.bits=1"], r"right: 2-8"),
        (["quant=hqq", "quant.bits=7"], r"right: 1, 2, 3, 4, 5, 6, 8"),
        (["quant=hqq", "quant.strategy=group", "quant.group_size=48"], r"takes whole groups"),
        (["quant=nf4", "quant.group_size=48"], r"takes whole groups"),
        (["quant=float8", "quant.strategy=group"], r"float8 takes channel or tensor"),
        (["quant=w8a8", "quant.input.bits=9"], r"quant\.input\.bits=9"),
        (["quant=w8a8", "quant.input.strategy=channel"], r"right: token or tensor"),
        (["quant=w8a8", "quant.input.strategy=tensor"], r"which samples share a batch; right: input\.dynamic=false"),
        (["quant=w8a8", "quant.input.dynamic=false"], r"right: input\.strategy=tensor"),
        (["quant=gptq", "quant.damp=2"], r"quant\.damp=2"),
        (["quant=gptq", "quant.strategy=group", "quant.group_size=32", "quant.act_order=true", "quant.static_groups=false"], "static_groups=true"),
        (["quant=rtn", "quant.damp=0.1"], "used by no cell"),
        (["quant.input.strategy=token"], "used by no cell"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(words: list[str], match: str) -> None:
    with pytest.raises(UserError, match=match, check=lambda e: "\n" not in str(e)):
        plan("part=vit", *words)


@pytest.fixture
def without_libraries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No extra is installed."""
    from blip2sweep.compression.quantize.options import resolve_options
    from blip2sweep.compression.quantize.resolve import _entries

    monkeypatch.setattr("blip2sweep.compression.quantize.find_spec", lambda name: None)
    for memoised in (installed, resolve_options, _entries):
        memoised.cache_clear()
    yield
    for memoised in (installed, resolve_options, _entries):
        memoised.cache_clear()


DONE_WHEN = ["quant=minmax,rtn,mse,hqq,nf4,gptq,awq,awq_prescale", "quant.bits=2,3,4", "part=all"]


def test_all_methods_by_all_widths_is_a_plan() -> None:
    """The grid of the issue, with every library there: pairs that do not fit are skipped with the reason."""
    if any(m.missing for m in METHODS.values()):
        pytest.skip("an extra is not installed")
    made = plan(*DONE_WHEN)
    assert sorted(made.reasons.values()) == [f"quant.bits={b}: nf4 has no such width; right: 4 or none" for b in (2, 3)]
    assert (len(made.cells), made.merged) == (8 * 3 - 2 + 1, 0)


def test_so_it_is_without_any_library(without_libraries: None) -> None:
    """From a fresh clone: what needs one is skipped with the reason, and the rest runs."""
    made = plan(*DONE_WHEN)
    skipped = sorted(made.reasons.values())
    assert sum("needs hqq" in r for r in skipped) == 3
    assert sum("needs bitsandbytes" in r for r in skipped) == 1
    assert (len(skipped), len(made.cells)) == (6, 6 * 3 + 1)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["quant=hqq,nf4"], "needs hqq"),
        (["quant=rtn,hqq", "quant.damp=0.1"], r"quant.damp=0.1: used by no cell"),
        (["quant=rtn,hqq", "quant.bits=9"], r"quant.bits=9"),
        (["quant=rtn,hqq", "calibration.seed=1"], r"calibration.seed=1: used by no cell"),
    ],
)
def test_an_absent_library_excuses_nothing_else(words: list[str], match: str, without_libraries: None) -> None:
    with pytest.raises(UserError, match=match, check=lambda e: "\n" not in str(e)):
        plan("part=vit", *words)


def test_a_knob_of_an_absent_librarys_method_is_not_at_fault(without_libraries: None) -> None:
    made = plan("part=vit", "quant=rtn,hqq", "quant.bits=3", "quant.strategy=channel,group", "quant.group_size=32")
    assert [r is None for r in made.keys] == [False, False, True, True]
    made = plan("part=vit", "quant=rtn,nf4", "quant.bits=4", "quant.group_size=64")
    assert [r is None for r in made.keys] == [False, True]


def test_a_tensors_range_is_one_of_the_samples_and_other_grid_values_go_on() -> None:
    made = plan("part=vit", "quant=w8a8", "quant.input.strategy=token,tensor", "quant.input.dynamic=true,false")
    assert [k is None for k in made.keys] == [False, True, True, False]


@pytest.mark.thorough
def test_knobs_that_are_not_used_do_not_make_another_cell() -> None:
    same = plan(
        "quant=gptq",
        "part=vit",
        "quant.bits=3",
        "quant.static_groups=true,false",
        "quant.strategy=channel,group",
        "quant.group_size=32",
    )
    assert same.keys[0] == same.keys[2]
    assert same.keys[1] != same.keys[3]
    assert plan("quant=rtn,gptq", "part=vit", "quant.act_order=true").keys[0] == plan("part=vit").keys[0]


def test_a_row_of_a_method_that_is_not_here_says_so() -> None:
    with pytest.raises(UserError, match="method ternary: not known here; right: --config-dir"):
        from_entry({"method": "ternary", "bits": 4, "strategy": "channel"})
