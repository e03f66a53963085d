"""GPTQ: against its definition, against RTN, and each corner: dead inputs, order, groups, damping, blocks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from blip2sweep.compression.quantize import gptq, rtn
from blip2sweep.compression.quantize.scheme import Weights
from blip2sweep.compression.quantize.statistics import Statistics, relative_error


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


PLAIN = Weights("gptq", 3, symmetric=False, act_order=False, static_groups=True, damp=0.01, block_size=128)


def layer(seed: int, out: int = 24, inn: int = 48, tokens: int = 400) -> tuple[Tensor, Statistics]:
    """A weight, and correlated inputs with an outlier channel and a mean."""
    g = torch.Generator().manual_seed(seed)
    mixing = torch.randn(inn, inn, generator=g) / inn**0.5
    x = torch.randn(tokens, inn, generator=g) @ mixing + torch.randn(inn, generator=g)
    x[:, 0] *= 20
    return torch.randn(out, inn, generator=g) / inn**0.5, seen(x)


def seen(x: Tensor) -> Statistics:
    statistics = Statistics(x.shape[1])
    statistics.add(x)
    return statistics


def column_by_column(w: Tensor, hessian: Tensor, weights: Weights) -> Tensor:
    """The definition, without Cholesky factors or blocks: round a column, solve for the best change of all later ones."""
    h = hessian.double() + weights.damp * hessian.diagonal().mean().double() * torch.eye(len(hessian))
    w, grid = w.double().clone(), gptq._Grid(w, weights)
    for j in range(w.shape[1]):
        group = int(grid.group[j])
        value = grid.rounded(grid.encoded(w[:, j].float(), group), group).double()
        inverse = torch.linalg.inv(h[j:, j:])
        w[:, j:] -= ((w[:, j] - value) / inverse[0, 0])[:, None] * inverse[0]
        w[:, j] = value
    return w.float()


def llmcompressors(w: Tensor, hessian: Tensor, weights: Weights, kept: Tensor | None = None) -> Tensor:
    """What llmcompressor 0.14.0 with compressed-tensors 0.19.0 computes on a CPU, operation by operation.

    kept: its mask of a sparse weight.
    """
    there = torch.ones_like(w) if kept is None else kept.float()
    least, most = -(2 ** (weights.num_bits - 1)), 2 ** (weights.num_bits - 1) - 1
    rows = w.reshape(len(w), -1, weights.group_size or w.shape[1])
    low, high = rows.amin(-1).clamp(max=0), rows.amax(-1).clamp(min=0)
    scale, zero_point = torch.max(-low, high) / ((most - least) / 2), torch.zeros_like(low)
    if not weights.symmetric:
        scale = (high - low) / (most - least)
        zero_point = (least - low / scale).clamp(least, most).round()
    h, w, result = hessian.clone(), w.clone(), torch.empty_like(w)
    h.diagonal().add_(weights.damp * torch.mean(torch.diag(h)))
    upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
    for j in range(w.shape[1]):
        group = j // rows.shape[2]
        codes = (w[:, j] / scale[:, group] + zero_point[:, group]).clamp(least, most).round()
        result[:, j] = (codes - zero_point[:, group]) * scale[:, group]
        w[:, j:] -= ((w[:, j] - result[:, j]) / upper[j, j])[:, None] * upper[j, j:] * there[:, j:]
    return result


@given(st.integers(0, 10**6), st.sampled_from([2, 3, 4, 8]), st.booleans(), st.sampled_from([None, 16]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_it_is_llmcompressors_to_the_last_bit(
    seed: int, bits: int, symmetric: bool, group_size: int | None, half: bool
) -> None:
    """Ties included: symmetric rows have one each at their largest weight, weights from half precision others."""
    w, statistics = layer(seed)
    w = w.half().float() if half else w
    grouping = {"strategy": "group", "group_size": group_size} if group_size else {}
    weights = replace(PLAIN, num_bits=bits, symmetric=symmetric, **grouping)
    found = gptq.calibrated(w, weights, statistics).weight
    assert torch.equal(found, llmcompressors(w, statistics.hessian, weights))


@given(st.integers(0, 10**6), st.sampled_from([2, 4]), st.booleans(), st.booleans(), st.sampled_from([7, 128]))
@settings(max_examples=30, deadline=None)
def test_zeros_of_a_sparse_layer_take_up_no_error(
    seed: int, bits: int, symmetric: bool, act_order: bool, block_size: int
) -> None:
    """As in llmcompressor. With a mask of all weights nothing is different."""
    w, statistics = layer(seed)
    kept = torch.rand(w.shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    w, weights = (
        w * kept,
        replace(PLAIN, num_bits=bits, symmetric=symmetric, act_order=act_order, block_size=block_size),
    )
    found = gptq.calibrated(w, weights, statistics, kept).weight
    assert (found[~kept] == 0).all()
    plain = gptq.calibrated(w, weights, statistics).weight
    assert torch.equal(gptq.calibrated(w, weights, statistics, torch.ones_like(kept)).weight, plain)
    if not act_order and block_size > w.shape[1]:
        assert torch.equal(found, llmcompressors(w, statistics.hessian, weights, kept))


def test_a_sparse_layer_gains_by_it_as_a_dense_one() -> None:
    gains = []
    for seed in range(8):
        w, statistics = layer(seed)
        kept = torch.rand(w.shape) < 0.5
        found = gptq.calibrated(w * kept, PLAIN, statistics, kept).weight
        nearest = rtn.quantize_dequantize(w * kept, PLAIN)
        errors = [relative_error(q, w * kept, statistics.hessian) for q in (found, nearest)]
        gains.append(errors[0] / errors[1])
    assert sum(gains) / len(gains) < 0.9


@given(st.integers(0, 10**6), st.sampled_from([2, 3, 4, 8]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_where_no_column_helps_another_it_differs_from_rtn_at_ties_only(seed: int, bits: int, symmetric: bool) -> None:
    w, _ = layer(seed)
    weights = replace(PLAIN, num_bits=bits, symmetric=symmetric)
    found = gptq.calibrated(w, weights, seen(torch.eye(48) * 3)).weight
    nearest = rtn.quantize_dequantize(w, weights)
    away, closest = (found - w).abs(), (nearest - w).abs()
    assert torch.allclose(away, closest, rtol=0, atol=4e-6 * float(w.abs().max()))  # a tie's two sides are as far


@pytest.mark.parametrize("block_size", [1, 7, 48, 128])
def test_it_is_the_definition_whatever_the_block_size(block_size: int) -> None:
    w, statistics = layer(0)
    found = gptq.calibrated(w, replace(PLAIN, block_size=block_size), statistics).weight
    expected = column_by_column(w, statistics.hessian, PLAIN)
    assert ((found - expected).abs() < 1e-5).float().mean() > 0.995  # a tie may fall to the other side in float32


@given(
    st.integers(0, 10**6), st.sampled_from([2, 3, 4, 8]), st.booleans(), st.booleans(),
    st.sampled_from([("channel", None), ("group", 16), ("group", 20), ("tensor", None)]),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_its_output_error_is_below_rtns_and_its_values_on_the_grid(
    seed: int, bits: int, symmetric: bool, act_order: bool, grouping: tuple[str, int | None]
) -> None:
    w, statistics = layer(seed)
    strategy, size = grouping
    weights = replace(
        PLAIN, num_bits=bits, symmetric=symmetric, act_order=act_order, strategy=strategy, group_size=size
    )
    result = gptq.calibrated(w, weights, statistics)
    plain = relative_error(rtn.quantize_dequantize(w, weights), w, statistics.hessian)
    assert result.info["error"] < plain
    for columns in range(0, 48, size or 48):
        rows = result.weight[:, columns : columns + (size or 48)]
        assert all(len(r.unique()) <= 2**bits for r in rows)


def test_static_groups_are_set_from_the_original_weights_and_others_on_the_way() -> None:
    w, statistics = layer(1)
    grouped = replace(PLAIN, strategy="group", group_size=16)
    static = gptq.calibrated(w, grouped, statistics)
    moving = gptq.calibrated(w, replace(grouped, static_groups=False, block_size=24), statistics)
    plain = relative_error(rtn.quantize_dequantize(w, grouped), w, statistics.hessian)
    assert static.info["error"] != moving.info["error"]
    assert max(static.info["error"], moving.info["error"]) < plain
    larger = gptq.calibrated(w, replace(grouped, static_groups=False), statistics).weight
    assert ((moving.weight - larger).abs() < 1e-5).float().mean() > 0.99  # a group sees all errors before it


def test_act_order_gives_the_columns_back_in_their_places() -> None:
    w, statistics = layer(2)
    result = gptq.calibrated(w, replace(PLAIN, act_order=True, num_bits=8), statistics)
    assert (result.weight - w).abs().max() < 0.1 * w.abs().max()


def test_dead_inputs_are_rounded_to_nearest_and_disturb_nothing() -> None:
    w, _ = layer(3)
    x = torch.randn(300, 48)
    x[:, [5, 17]] = 0
    result = gptq.calibrated(w, PLAIN, seen(x))
    nearest = rtn.quantize_dequantize(w, PLAIN)
    assert result.info["dead"] == 2
    assert torch.equal(result.weight[:, [5, 17]], nearest[:, [5, 17]])
    assert (nearest[:, [5, 17]] != 0).any()  # zeroing them would be wrong for inputs that calibration did not show


def test_all_dead_is_round_to_nearest() -> None:
    w, _ = layer(4)
    assert torch.equal(gptq.calibrated(w, PLAIN, seen(torch.zeros(10, 48))).weight, rtn.quantize_dequantize(w, PLAIN))


def test_damping_is_raised_until_the_factorization_succeeds() -> None:
    w, _ = layer(5)
    few = seen(torch.randn(3, 48) * 1e3)  # rank 3 of 48
    result = gptq.calibrated(w, replace(PLAIN, damp=0.0), few)
    assert result.info["damp"] > 0
    assert result.weight.isfinite().all()
    assert few.rank() == 3


@pytest.mark.parametrize("outlier", [1.0, 1e3, 1e4])
def test_the_rank_is_seen_past_an_outlier(outlier: float) -> None:
    """One large input must not hide the others behind its rounding."""
    g = torch.Generator().manual_seed(0)
    x = (torch.randn(500, 30, generator=g) + 5 * torch.randn(1, 30, generator=g)) @ torch.randn(30, 64, generator=g)
    x[:, 3] *= outlier
    x[:, 60:] = 0
    assert seen(x).rank() == 30
    assert seen(torch.randn(500, 64, generator=g) * torch.logspace(-3, 3, 64)).rank() == 64
    assert seen(torch.zeros(10, 8)).rank() == 0


def test_independent_inputs_of_one_size_are_round_to_nearest() -> None:
    """With a diagonal Hessian no column can help another."""
    w, _ = layer(6)
    statistics = seen(torch.eye(48) * 3)
    assert torch.equal(gptq.calibrated(w, PLAIN, statistics).weight, rtn.quantize_dequantize(w, PLAIN))


def test_token_weights_count_as_repetitions() -> None:
    x, y = torch.randn(20, 8), torch.randn(30, 8)
    weighted, repeated = Statistics(8), Statistics(8)
    weighted.add(torch.cat([x, y]), torch.tensor([2.0] * 20 + [0.0] * 30))
    repeated.add(torch.cat([x, x]))
    assert torch.allclose(weighted.hessian, repeated.hessian, rtol=1e-4, atol=1e-4)
    assert torch.allclose(weighted.mean_abs, repeated.mean_abs)
    assert weighted.tokens == 20


def test_inputs_that_are_not_finite_are_refused() -> None:
    with pytest.raises(FloatingPointError, match="not finite"):
        seen(torch.tensor([[1.0, float("nan")]]))
