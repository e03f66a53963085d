"""Properties that every quantizer here must have, whatever the weights."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from blip2sweep.compression.quantize import METHODS, minmax, rtn
from blip2sweep.compression.quantize.scheme import Weights

BITS = st.integers(1, 8)
SEEDS = st.integers(0, 2**31)
settings.register_profile("methods", max_examples=60, deadline=None)
settings.load_profile("methods")


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Weights of many scales and shapes, some rows constant, zero, or with an outlier."""
    generator = torch.Generator().manual_seed(draw(SEEDS))
    rows, columns = draw(st.integers(1, 6)), draw(st.integers(1, 40))
    x = torch.randn(rows, columns, generator=generator) * 10.0 ** draw(st.integers(-6, 6)) + draw(
        st.sampled_from([0, 0.3, -5])
    )
    kind = draw(st.sampled_from(["plain", "zero row", "constant row", "outlier", "one sign"]))
    if kind == "zero row":
        x[0] = 0
    elif kind == "constant row":
        x[0] = x[0, 0].item()
    elif kind == "outlier":
        x[0, 0] *= 1e4
    return x.abs() if kind == "one sign" else x


def published(x: Tensor, bits: int) -> Tensor:
    """The study's formula (gautomdas/blip2-coco), word for word."""
    a = x.max() - x.min()
    return ((((2**bits) - 1) * (x - x.min()) / a).round() / ((2**bits) - 1)) * a + x.min()


@given(tensors(), st.one_of(BITS, st.just(16)))
def test_minmax_is_the_published_formula_bit_for_bit(x: Tensor, bits: int) -> None:
    expected = published(x, bits)
    if x.max() > x.min():
        assert torch.equal(minmax.quantize_dequantize(x, bits), expected)
    else:
        assert expected.isnan().all()  # the case the formula does not have
        assert torch.equal(minmax.quantize_dequantize(x, bits), x)


@given(tensors(), BITS)
def test_minmax_stays_within_half_a_step_and_on_few_levels(x: Tensor, bits: int) -> None:
    y = minmax.quantize_dequantize(x, bits)
    step = (x.max() - x.min()).double() / (2**bits - 1)
    assert ((y - x).abs().double() <= step * 0.5 + 4e-7 * x.abs().max().double()).all()
    assert y.unique().numel() <= 2**bits


@given(tensors(), BITS)
def test_minmax_again_changes_next_to_nothing(x: Tensor, bits: int) -> None:
    once = minmax.quantize_dequantize(x, bits)
    assert torch.allclose(minmax.quantize_dequantize(once, bits), once, rtol=1e-6, atol=float(x.abs().max()) * 1e-6)


def test_minmax_quantizes_the_bias_only_when_told() -> None:
    weight, bias = torch.randn(4, 8), torch.randn(4)
    scheme = Weights("minmax", 3, strategy="tensor", quantize_bias=True)
    assert torch.equal(minmax.apply(weight, bias, scheme)[1], published(bias, 3))
    assert minmax.apply(weight, bias, Weights("minmax", 3, quantize_bias=False))[1] is bias
    assert minmax.apply(weight, None, scheme)[1] is None


def scheme(strategy: str, bits: int, symmetric: bool, group: int) -> Weights:
    return Weights(
        "rtn", bits, strategy=strategy, group_size=group if strategy == "group" else None, symmetric=symmetric
    )


SCHEMES = st.builds(scheme, st.sampled_from(METHODS["rtn"].strategies), BITS, st.booleans(), st.integers(1, 48))


def pieces(x: Tensor, weights: Weights) -> list[Tensor]:
    """What shares a scale: the tensor, its rows, or runs of `group_size` columns and the tail."""
    if weights.strategy == "tensor":
        return [x]
    size = weights.group_size or x.shape[1]
    return [row for chunk in x.split(size, dim=1) for row in chunk]


@given(tensors(), SCHEMES)
def test_rtn_is_finite_keeps_the_shape_and_the_input(x: Tensor, weights: Weights) -> None:
    before = x.clone()
    y = rtn.quantize_dequantize(x, weights)
    assert y.shape == x.shape
    assert y.isfinite().all()
    assert torch.equal(x, before)


@given(tensors(), SCHEMES)
def test_rtn_stays_within_half_a_step_of_each_group_and_on_its_levels(x: Tensor, weights: Weights) -> None:
    y = rtn.quantize_dequantize(x, weights)
    levels = 2**weights.num_bits - 1
    for a, b in zip(pieces(x, weights), pieces(y, weights), strict=True):
        low, high = a.min().clamp(max=0).double(), a.max().clamp(min=0).double()
        step = (2 * max(-low, high) if weights.symmetric else high - low) / levels
        assert ((b - a).abs().double() <= step * 0.5 + 1e-6 * a.abs().max() + 2e-7).all()
        assert b.unique().numel() <= levels + 1


@given(tensors(), SCHEMES)
def test_rtn_keeps_zero(x: Tensor, weights: Weights) -> None:
    x[:, 0] = 0
    assert (rtn.quantize_dequantize(x, weights)[:, 0] == 0).all()


@given(tensors(), SCHEMES.filter(lambda w: not w.symmetric and w.num_bits > 1))
def test_rtn_again_moves_nothing_by_more_than_rounding(x: Tensor, weights: Weights) -> None:
    once = rtn.quantize_dequantize(x, weights)
    twice = rtn.quantize_dequantize(once, weights)
    for a, b in zip(pieces(once, weights), pieces(twice, weights), strict=True):
        spread = float(a.max().clamp(min=0) - a.min().clamp(max=0))
        assert float((a - b).abs().max()) <= 1e-5 * spread + 2e-7


@given(tensors(), BITS, st.booleans(), st.integers(1, 48))
def test_a_group_is_quantized_as_if_it_stood_alone(x: Tensor, bits: int, symmetric: bool, group: int) -> None:
    whole = rtn.quantize_dequantize(x, scheme("group", bits, symmetric, group))
    alone = [rtn.quantize_dequantize(c, scheme("channel", bits, symmetric, group)) for c in x.split(group, dim=1)]
    assert torch.equal(whole, torch.cat(alone, dim=1))


@pytest.mark.parametrize("value", [0.0, 1e-30, -1e-30, 3.0, 1e30])
@pytest.mark.parametrize("strategy", ["tensor", "channel", "group"])
def test_constant_weights_of_any_size_give_no_nan(value: float, strategy: str) -> None:
    x = torch.full((3, 10), value)
    assert rtn.quantize_dequantize(x, scheme(strategy, 4, False, 4)).isfinite().all()
    assert rtn.quantize_dequantize(x, scheme(strategy, 4, True, 4)).isfinite().all()
    assert torch.equal(minmax.quantize_dequantize(x, 4), x)


@given(SEEDS, st.integers(2, 7))
def test_a_bit_more_never_hurts(seed: int, bits: int) -> None:
    x = torch.randn(8, 64, generator=torch.Generator().manual_seed(seed))
    errors = [
        (rtn.quantize_dequantize(x, scheme("channel", b, False, 0)) - x).square().mean() for b in (bits, bits + 1)
    ]
    assert errors[1] < errors[0]


@pytest.mark.parametrize("bits", range(2, 9))
def test_symmetric_rtn_is_not_idempotent(bits: int) -> None:
    """torchao's scale puts max|w| half a step beyond the highest code, so it rounds up or down, and the next scale is
    another."""
    x = torch.randn(4, 64, generator=torch.Generator().manual_seed(bits))
    x[:, 0] = -1.001 * x.abs().amax(-1)
    weights = scheme("channel", bits, True, 0)
    once = rtn.quantize_dequantize(x, weights)
    steps = [rtn.quantize(rows, bits, True).scale for rows in (x, once)]
    half = 1 / (2**bits - 1)
    assert torch.allclose((steps[1] / steps[0] - 1).abs(), torch.full((4, 1), half), rtol=1e-3)
    assert not torch.allclose(rtn.quantize_dequantize(once, weights), once)
