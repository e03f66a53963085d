"""Masks against a plain numpy Wanda, and what holds of every mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from blip2sweep.compression.sparsity.mask import from_bits, kept_weights, to_bits
from blip2sweep.compression.sparsity.spec import Sparse
from blip2sweep.compression.step import plain
from blip2sweep.models.part import Linear

RATIOS = (0.01, 0.1, 0.29, 0.3, 0.5, 0.7, 0.999)


def numpy_wanda(weight: np.ndarray, x: np.ndarray, zeros: int | None) -> np.ndarray:
    """Algorithm 1 of arXiv:2306.11695 in plain numpy: X (tokens, in), W (out, in). zeros: of a row; None for 2:4."""
    metric = np.abs(weight) * np.sqrt((x.astype(np.float64) ** 2).sum(0))
    pruned = weight.copy()
    for row, scores in zip(pruned, metric, strict=True):
        if zeros is not None:
            row[np.argsort(scores, kind="stable")[:zeros]] = 0
            continue
        for start in range(0, len(row), 4):
            row[start + np.argsort(scores[start : start + 4], kind="stable")[:2]] = 0
    return pruned


def layer(out: int = 24, inn: int = 100, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(out, inn, generator=g), torch.randn(50, inn, generator=g) * torch.rand(inn, generator=g) * 10


@pytest.mark.parametrize("sparse", [*(Sparse("wanda", ratio=r) for r in RATIOS), Sparse("wanda", "2of4")])
def test_wanda_is_a_plain_numpy_one(sparse: Sparse) -> None:
    weight, x = layer()
    kept = kept_weights(weight, sparse, x.pow(2).sum(0).sqrt())
    zeros = None if sparse.structured else int(np.floor(float(sparse.ratio or 0) * 100 + 1e-9))
    assert np.array_equal((weight * kept).numpy(), numpy_wanda(weight.numpy(), x.numpy(), zeros))


@pytest.mark.parametrize("method", ["magnitude", "wanda"])
@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("inn", [1000, 100, 7])
def test_exactly_the_ratio_of_every_row_is_zero(method: str, ratio: float, inn: int) -> None:
    """Also in half precision, with equal weights, and with inputs that are always zero."""
    weight, x = layer(9, inn)
    weight[0], x[:, : inn // 2] = 1.0, 0
    sparse = Sparse(method, ratio=ratio)
    kept = kept_weights(weight.bfloat16(), sparse, x.norm(dim=0) if method == "wanda" else None)
    zeros = int(np.floor(round(ratio * 1000) * inn / 1000))
    assert ((~kept).sum(1) == zeros).all()
    assert sparse.zeros(inn) == zeros


def test_two_of_each_four_are_zero() -> None:
    weight, x = layer()
    for norms in (None, x.norm(dim=0), torch.zeros(100)):
        kept = kept_weights(weight, Sparse("wanda", "2of4"), norms)
        assert (kept.unflatten(1, (-1, 4)).sum(-1) == 2).all()


def test_what_stays_scores_at_least_as_much_as_what_goes() -> None:
    weight, x = layer(seed=3)
    score = weight.abs() * x.norm(dim=0)
    kept = kept_weights(weight, Sparse("wanda", ratio=0.6), x.norm(dim=0))
    least = score.masked_fill(~kept, float("inf")).amin(1)
    assert (score.masked_fill(kept, 0).amax(1) <= least).all()


def test_inputs_of_one_size_make_wanda_magnitude() -> None:
    weight, _ = layer()
    for pattern in ("unstructured", "2of4"):
        wanda = kept_weights(weight, Sparse("wanda", pattern, 0.5), torch.full((100,), 3.0))
        assert torch.equal(wanda, kept_weights(weight, Sparse("magnitude", pattern, 0.5)))


def test_large_layers_are_sorted_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, _ = layer()
    whole = kept_weights(weight, Sparse("magnitude", ratio=0.5))
    monkeypatch.setattr("blip2sweep.compression.sparsity.mask.AT_ONCE", 350)
    assert torch.equal(kept_weights(weight, Sparse("magnitude", ratio=0.5)), whole)


@pytest.mark.parametrize("inn", [1, 7, 8, 9, 100])
def test_a_mask_is_the_same_after_it_was_bits(inn: int) -> None:
    kept = torch.rand(5, inn) < 0.5
    bits = to_bits(kept)
    assert (bits.dtype, bits.shape) == (torch.uint8, (5, -(-inn // 8)))
    assert torch.equal(from_bits(bits, inn), kept)


def test_sizes_count_the_mask_or_the_indices() -> None:
    x = Linear("layer", "layer", "mlp", "blocks", 0, 24, 100, False)
    half, pairs = Sparse("magnitude", ratio=0.5), Sparse("magnitude", "2of4")
    assert half.stored(x, plain(x, 16)).weight_bits == x.weights * (16 / 2 + 1)
    assert pairs.stored(x, plain(x, 16)).weight_bits == x.weights * (2 * 16 + 4) / 4
    assert Sparse("magnitude", ratio=0.29).stored(x, plain(x, 16)).values == 24 * 71
