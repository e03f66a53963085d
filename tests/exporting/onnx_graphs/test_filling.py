"""What MatMulNBits stores beyond the zero points of a layer is told apart from them."""

from __future__ import annotations

import pytest
import torch

from blip2sweep.compression.quantize.codes import Codes
from blip2sweep.compression.quantize.scheme import Weights
from blip2sweep.exporting.onnx_graphs.saved import _filling


@pytest.mark.parametrize(
    ("bits", "groups", "symmetric", "bytes_more"),
    [
        (2, 1, False, 10 - 2.5),  # a row's two bits fill a byte
        (4, 1, False, 10 - 5),
        (4, 3, False, 10 * 2 - 10 * 1.5),
        (4, 2, False, 0),
        (8, 1, False, 0),
        (2, 1, True, 0),
    ],
)
def test_rows_of_zero_points_begin_with_a_byte(bits: int, groups: int, symmetric: bool, bytes_more: float) -> None:
    size = None if groups == 1 else 32
    row = 32 * groups
    zero_point = None if symmetric else torch.zeros(10, groups, dtype=torch.uint8)
    codes = Codes(torch.zeros(10, row, dtype=torch.uint8), torch.ones(10, groups), zero_point, bits, size)
    weights = Weights("rtn", bits, strategy="group" if size else "channel", group_size=size, symmetric=symmetric)
    assert _filling(codes, weights) == int(bytes_more + 0.5)


def test_other_operators_pack_them_densely() -> None:
    codes = Codes(torch.zeros(10, 48, dtype=torch.uint8), torch.ones(10, 1), torch.zeros(10, 1), 2)
    assert _filling(codes, Weights("rtn", 2, symmetric=False)) == 0
