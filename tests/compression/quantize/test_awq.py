"""AWQ, its prescale form and SmoothQuant: the published grid, RTN at its first point, and never worse than it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from blip2sweep.compression.quantize import awq, awq_prescale, rtn, smoothquant
from blip2sweep.compression.quantize.activations import InputQuantizer
from blip2sweep.compression.quantize.scheme import Activations, Weights
from blip2sweep.compression.quantize.statistics import output_error, relative_error
from tests.apply.calibration.folding import fold
from tests.compression.quantize.test_gptq import layer, seen

PLAIN = Weights("awq_prescale", 3, symmetric=False, grid=20, clip=False)
GROUPED = Weights("awq_prescale", 3, strategy="group", group_size=16, symmetric=False, grid=20, clip=False)


def test_exponents_go_from_0_to_19_twentieths() -> None:
    """Trap: exponents 0 … 19, of which all but the first are absurd."""
    mean_abs = torch.tensor([1.0, 100.0])
    tried: list[float] = []
    awq.search(mean_abs, 20, lambda s: tried.append(float(s[1] / s[0])) or 0.0)
    assert tried == pytest.approx([100 ** (k / 20) for k in range(20)], rel=1e-4)


@pytest.mark.parametrize("weights", [PLAIN, GROUPED])
def test_the_first_point_is_rtn_exactly(weights: Weights) -> None:
    w, statistics = layer(0)
    only = awq_prescale.calibrated(w, Weights(**{**vars(weights), "grid": 1}), statistics)
    assert torch.equal(only.weight, rtn.quantize_dequantize(w, weights))
    assert (only.prescale == 1).all()


@given(st.integers(0, 10**6), st.sampled_from([2, 3, 4]), st.sampled_from([PLAIN, GROUPED]))
@settings(max_examples=30, deadline=None)
def test_without_clipping_it_is_never_worse_than_rtn(seed: int, bits: int, weights: Weights) -> None:
    w, statistics = layer(seed)
    weights = Weights(**{**vars(weights), "num_bits": bits})
    plain = relative_error(rtn.quantize_dequantize(w, weights), w, statistics.hessian)
    assert awq_prescale.calibrated(w, weights, statistics).info["error"] <= plain * (1 + 1e-6)


def test_an_outlier_channel_is_where_it_helps() -> None:
    w, statistics = layer(1)
    plain = relative_error(rtn.quantize_dequantize(w, PLAIN), w, statistics.hessian)
    assert awq_prescale.calibrated(w, PLAIN, statistics).info["error"] < 0.9 * plain


@pytest.mark.parametrize("weights", [PLAIN, GROUPED, Weights("awq", 3, strategy="tensor", symmetric=True, grid=20)])
def test_clipping_lowers_the_error_of_each_scales_own_part(weights: Weights) -> None:
    w, statistics = layer(2)
    clipped = awq.clip(w, weights, statistics.hessian)
    size = weights.group_size or 48
    for start in range(0, 48, size):
        part = slice(start, start + size)
        before, after = (
            output_error((rtn.quantize_dequantize(x, weights) - w)[:, part], statistics.hessian[part, part])
            for x in (w, clipped)
        )
        assert after <= before * (1 + 1e-5)
    assert (clipped.abs() <= w.abs()).all()


def test_a_fold_takes_the_bias_along() -> None:
    """Trap: scales folded into the weight of what stands before, and not into its bias."""
    before, reader, x = torch.nn.Linear(8, 12), torch.nn.Linear(12, 5), torch.randn(30, 8)
    expected = reader(before(x).relu())
    fold(before, [reader], torch.rand(12) + 0.1)
    assert torch.allclose(reader(before(x).relu()), expected, atol=1e-5)


def test_a_fold_into_a_third_leaves_the_rest() -> None:
    qkv, projection, x = torch.nn.Linear(8, 24), torch.nn.Linear(8, 5), torch.randn(30, 8)
    expected = projection(qkv(x)[:, 16:]), qkv(x)[:, :16]
    fold(qkv, [projection], torch.rand(8) + 0.1, (2, 3))
    assert torch.allclose(projection(qkv(x)[:, 16:]), expected[0], atol=1e-5)
    assert torch.equal(qkv(x)[:, :16], expected[1])


def test_scaling_rows_commutes_with_quantization() -> None:
    """Why a cell may carry Q(W s) / s instead of a folded model: what stands before is quantized to the same values."""
    w, s = torch.randn(12, 40), torch.rand(12, 1) + 0.1
    for weights in (PLAIN, GROUPED):
        one, other = rtn.quantize_dequantize(w / s, weights), rtn.quantize_dequantize(w, weights) / s
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)


def test_smoothquant_levels_inputs_and_weights() -> None:
    w, statistics = layer(3)
    s = smoothquant.smoothing(statistics.largest, w, 0.5)
    assert torch.allclose(statistics.largest / s, w.abs().amax(0) * s, rtol=1e-4)


def test_smoothquant_helps_once_inputs_are_quantized() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(300, 48, generator=g)
    x[:, 7] *= 100
    w = torch.randn(24, 48, generator=g)
    eight = Weights("smoothquant", 8, symmetric=True, alpha=0.5)
    result, inputs = smoothquant.calibrated(w, eight, seen(x)), Activations(8)
    plain = InputQuantizer(inputs)(x) @ rtn.quantize_dequantize(w, eight).T
    smooth = InputQuantizer(inputs, result.prescale)(x) @ result.weight.T
    assert (smooth - x @ w.T).norm() < 0.5 * (plain - x @ w.T).norm()
