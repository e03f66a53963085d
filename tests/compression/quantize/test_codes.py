"""Codes, and what becomes of them: a second time with numpy, number by number, for every method that hands them out."""

from __future__ import annotations

import importlib
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from blip2sweep.apply.calibration.finished import from_bytes, from_file, to_bytes, to_file
from blip2sweep.compression.quantize import METHODS, arithmetic, installed, mse, rtn, stored
from blip2sweep.compression.quantize.codes import Codes, dequantize
from blip2sweep.compression.quantize.layer import exchange, telling_codes
from blip2sweep.compression.quantize.prepared import Prepared
from blip2sweep.compression.quantize.scheme import Scheme, Weights
from blip2sweep.compression.undo import Undo
from blip2sweep.compression.zeros import mark
from blip2sweep.models.dtypes import STORED
from blip2sweep.models.part import Linear
from tests.compression.quantize.test_gptq import layer
from tests.compression.quantize.test_methods import tensors

METHODS_WITH_CODES = ("rtn", "mse", "gptq", "awq", "awq_prescale", "smoothquant")
IN, OUT = 48, 6
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def weights_of(method: str, bits: int, strategy: str, symmetric: bool, group: int, **more: Any) -> Weights:
    """With the method's own options, but fewer steps of a search."""
    options = {**METHODS[method].options, "symmetric": symmetric, **more}
    options |= {k: 8 for k in ("grid",) if k in options}
    return Weights(method, bits, strategy=strategy, **{**options, "group_size": group if strategy == "group" else None})


def made(weights: Weights, w: Tensor, statistics: Any, dtype: torch.dtype) -> tuple[Codes, Tensor]:
    """(codes, the weight that the layer gets)."""
    own = arithmetic(weights.method)
    if not METHODS[weights.method].calibrates:
        codes = own.codes(w, weights, dtype)
        return codes, dequantize(codes)
    statistics.scale_dtype = dtype
    result = own.calibrated(w, weights, statistics)
    assert result.codes is not None
    return result.codes, result.weight


def by_hand(codes: Codes) -> np.ndarray:
    """Each number by itself."""
    values, scale = codes.values.numpy(), codes.scale.float().numpy()
    found = np.empty(values.shape, np.float32)
    for i, j in np.ndindex(*values.shape):
        row, group = (0 if len(scale) == 1 else i), (j // codes.group_size if codes.group_size else 0)
        zero = 2 ** (codes.bits - 1) if codes.zero_point is None else float(codes.zero_point[row, group])
        found[i, j] = np.float32(np.float32(values[i, j]) - np.float32(zero)) * scale[row, group]
        if codes.prescale is not None:
            found[i, j] = found[i, j] / np.float32(codes.prescale[j])
    return found


@given(
    st.sampled_from(METHODS_WITH_CODES), st.integers(2, 8), st.sampled_from(["channel", "tensor", "group"]), st.booleans(),
    st.sampled_from([16, 20, 47]), st.sampled_from(DTYPES), st.integers(0, 10**6),
)  # fmt: skip
@settings(max_examples=120, deadline=None)
def test_a_layers_weight_is_that_of_its_codes(
    method: str, bits: int, strategy: str, symmetric: bool, group: int, dtype: torch.dtype, seed: int
) -> None:
    w, statistics = layer(seed, OUT, IN, 60)
    weights = weights_of(method, bits, strategy, symmetric, group)
    codes, found = made(weights, w, statistics, dtype)
    assert torch.equal(torch.from_numpy(by_hand(codes)), found)
    assert (codes.values.dtype, codes.scale.dtype) == (torch.uint8, dtype)
    assert int(codes.values.max()) < 2**bits
    assert codes.scale.numel() == stored.scales(Linear("x", "x", "mlp", "s", 0, OUT, IN, False), weights)
    assert (codes.zero_point is None) == symmetric
    if codes.zero_point is not None:
        assert codes.zero_point.shape == codes.scale.shape
        assert (codes.zero_point == codes.zero_point.round()).all()
        assert 0 <= codes.zero_point.min() <= codes.zero_point.max() < 2**bits


@pytest.mark.parametrize("more", [{"static_groups": False}, {"act_order": True}])
def test_scales_that_are_set_on_the_way_and_columns_in_any_order_have_their_codes(more: dict[str, bool]) -> None:
    w, statistics = layer(3, OUT, IN, 60)
    codes, found = made(weights_of("gptq", 3, "group", False, 20, **more), w, statistics, torch.float32)
    assert torch.equal(torch.from_numpy(by_hand(codes)), found)


@pytest.mark.skipif(not installed("hqq"), reason="needs hqq")
@pytest.mark.parametrize(("bits", "group", "dtype"), [*product((3, 4, 8), (None, 16), DTYPES)])
def test_hqqs_zero_points_are_numbers(bits: int, group: int | None, dtype: torch.dtype) -> None:
    w, _ = layer(1, OUT, IN, 60)
    weights = Weights("hqq", bits, strategy="group" if group else "channel", group_size=group)
    codes = importlib.import_module("blip2sweep.compression.quantize.hqq").codes(w, weights, dtype)
    found = dequantize(codes)
    assert torch.equal(torch.from_numpy(by_hand(codes)), found)
    assert (found - w).norm() < 0.4 * w.norm()
    assert codes.zero_point is not None
    if dtype.itemsize == 2:
        assert torch.equal(codes.zero_point, codes.zero_point.to(dtype).float())


def test_methods_that_hand_out_codes_say_so_without_torch() -> None:
    said = {name for name, method in METHODS.items() if method.has_codes}
    assert said == {*METHODS_WITH_CODES, "hqq"}
    assert {name for name in said if not METHODS[name].calibrates} == {
        name
        for name in METHODS
        if not METHODS[name].backend and not METHODS[name].missing and hasattr(arithmetic(name), "codes")
    }


# ---- against what was there before codes, in float32


def on_rows(x: Tensor, weights: Weights, rows: Any) -> Tensor:
    result = x.clone()
    for columns, length in rtn.split_groups(x, weights.strategy, weights.group_size):
        piece = x[:, columns]
        result[:, columns] = rows(piece.reshape(-1, length)).reshape(piece.shape)
    return result


def nearest(rows: Tensor, bits: int, symmetric: bool, shrink: float = 1.0) -> Tensor:
    low, high = rows.amin(-1, keepdim=True).clamp(max=0), rows.amax(-1, keepdim=True).clamp(min=0)
    scale, zero_point = rtn.grid(low * shrink, high * shrink, bits, symmetric)
    return (rtn.encode(rows, scale, zero_point, bits, symmetric) - zero_point) * scale


@given(tensors(), st.integers(1, 8), st.booleans(), st.sampled_from(["channel", "tensor", "group"]), st.integers(1, 48))
def test_rtn_is_as_it_was_bit_for_bit(x: Tensor, bits: int, symmetric: bool, strategy: str, group: int) -> None:
    weights = weights_of("rtn", bits, strategy, symmetric, group)
    assert torch.equal(rtn.quantize_dequantize(x, weights), on_rows(x, weights, lambda r: nearest(r, bits, symmetric)))


@given(tensors(), st.integers(1, 8), st.booleans(), st.sampled_from(["channel", "tensor", "group"]))
@settings(max_examples=30)
def test_mse_is_as_it_was_bit_for_bit(x: Tensor, bits: int, symmetric: bool, strategy: str) -> None:
    weights = weights_of("mse", bits, strategy, symmetric, 7)

    def best(rows: Tensor) -> Tensor:
        unit = (rows.amax(-1, keepdim=True).clamp(min=0) - rows.amin(-1, keepdim=True).clamp(max=0)).clamp(min=1e-30)
        found, least = rows, unit + float("inf")
        for step in range(weights.grid or 0):
            values = nearest(rows, bits, symmetric, 1 - 0.8 * step / (weights.grid or 1))
            error = mse.summed(((values - rows).abs() / unit).pow(weights.norm or 0))
            found, least = values.where(error < least, found), error.where(error < least, least)
        return found

    assert torch.equal(dequantize(mse.codes(x, weights)), on_rows(x, weights, best))


# ---- scales of 16 bits


@pytest.mark.parametrize("dtype", DTYPES[1:])
@pytest.mark.parametrize("symmetric", [True, False])
def test_codes_are_those_of_the_scale_that_is_read_back(dtype: torch.dtype, symmetric: bool) -> None:
    w, _ = layer(2, OUT, IN)
    codes = rtn.codes(w, weights_of("rtn", 4, "group", symmetric, 20), dtype)
    exact = rtn.codes(w, weights_of("rtn", 4, "group", symmetric, 20))
    assert not torch.equal(codes.scale.float(), exact.scale)
    assert torch.equal(codes.scale, exact.scale.to(dtype))
    u = (w * (1.0 / codes.spread(codes.scale.float()))).round() + codes.spread(codes.zero)
    assert torch.equal(codes.values, u.clamp(0, 15).to(torch.uint8))


@pytest.mark.parametrize("method", METHODS_WITH_CODES)
@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_a_method_reckons_with_the_rounding_of_its_scales(method: str, dtype: torch.dtype) -> None:
    """Its error is little more than with exact ones, and a factor that inputs are divided by is one that can be stored."""
    w, statistics = layer(4, OUT, IN, 200)
    weights = weights_of(method, 4, "channel", False, 0)
    exact, found = (made(weights, w, statistics, d)[1] for d in (torch.float32, dtype))
    assert not torch.equal(exact, found)
    assert (found - w).norm() < 1.2 * (exact - w).norm()
    if METHODS[method].prescale:
        prescale = made(weights, w, statistics, dtype)[0].prescale
        assert prescale is not None
        assert torch.equal(prescale, prescale.to(dtype).float())


# ---- in a layer, and kept


def linear(dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(IN, OUT).requires_grad_(False).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sparse", [False, True])
def test_a_layer_tells_its_codes(dtype: torch.dtype, sparse: bool) -> None:
    module, scheme = linear(dtype), Scheme(weights_of("rtn", 3, "group", False, 20))
    module.weight.data[torch.rand(OUT, IN) < 0.5] = 0
    zeros = module.weight == 0
    with Undo() as undo, telling_codes() as told:
        if sparse:
            mark(module, undo)
        exchange("x", module, scheme, undo)
        codes = told["x"]
        assert codes.scale.dtype == dtype
        assert torch.equal(module.weight, dequantize(codes).to(dtype))
        assert (module.weight[zeros] == 0).all()
    with Undo() as undo, telling_codes() as again:
        exchange("x", module, scheme, undo, Prepared("k", None, codes=codes))
        assert again["x"] is codes
        assert torch.equal(module.weight, dequantize(codes).to(dtype))


def test_scales_are_those_of_the_dtype_in_which_a_layer_is_stored() -> None:
    module, scheme = linear(), Scheme(weights_of("rtn", 3, "channel", False, 0))
    setattr(module, STORED, torch.float16)
    with Undo() as undo, telling_codes() as told:
        exchange("x", module, scheme, undo)
        assert told["x"].scale.dtype == torch.float16
        assert torch.equal(module.weight, dequantize(told["x"]))
        assert not torch.equal(module.weight, module.weight.half().float())  # it computes in float32


def test_a_zero_point_between_two_codes_has_no_zeros_to_keep() -> None:
    codes = Codes(torch.zeros(1, 4, dtype=torch.uint8), torch.ones(1, 1), torch.full((1, 1), 0.5), 4)
    assert codes.with_zeros(torch.tensor([[True, False, True, True]])) is None
    assert codes.with_zeros(None) is codes


def test_codes_are_kept_with_what_calibration_made(tmp_path: Any) -> None:
    w, statistics = layer(5, OUT, IN, 60)
    full = made(weights_of("awq_prescale", 3, "group", False, 20), w, statistics, torch.float16)[0]
    plain = made(weights_of("gptq", 3, "channel", True, 0), w, statistics, torch.bfloat16)[0]
    there = {
        "a": Prepared("k", None, full.prescale, codes=full),
        "b": Prepared("l", None, full.prescale, codes=replace(plain, prescale=full.prescale)),  # one tensor thrice
        "c": Prepared("m", w),
    }
    to_file(tmp_path / "layers", there)
    for found in (
        from_bytes(to_bytes(there), torch.device("cpu")),
        from_file(tmp_path / "layers", torch.device("cpu")),
    ):
        for name, one in there.items():
            other = found[name]
            assert torch.equal(*(x.values(torch.float32) for x in (one, other)))  # type: ignore[arg-type]
            if one.codes is not None and other.codes is not None:
                assert other.codes.scale.dtype == one.codes.scale.dtype
                assert (other.codes.bits, other.codes.group_size) == (one.codes.bits, one.codes.group_size)
            assert (one.codes is None) == (other.codes is None)
