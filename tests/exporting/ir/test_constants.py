"""Codes in an OpenVINO model: of every width, the numbers of `dequantize`, in as many bytes as they have bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import openvino as ov
import pytest
import torch
from torch import Tensor, nn

from blip2sweep.backends.openvino.backend import EXACT
from blip2sweep.compression.quantize.codes import Codes, dequantize
from blip2sweep.exporting.ir.constants import CODES, constants, narrow, put_codes
from blip2sweep.exporting.ir.convert import converted, finish
from blip2sweep.exporting.openvino import BITS
from blip2sweep.models.graphs import Graph, Input

ROWS, COLUMNS, GROUP = 24, 32, 8


class Layers(nn.Module):
    """A graph of linear layers that read one input, `layers` of the model."""

    def __init__(self, own: Sequence[Codes]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(COLUMNS, ROWS) for _ in own)
        for layer, codes in zip(self.layers, own, strict=True):
            layer.weight.data = dequantize(codes)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(layer(x) for layer in self.layers)


def graph(module: Layers) -> Graph:
    outputs = tuple(f"y{i}" for i in range(len(module.layers)))
    return Graph("one", module, (Input("x", torch.zeros(2, COLUMNS), {0: "rows"}),), outputs, {"layers": "deep.layers"})


def codes(bits: int, groups: int = 1, rows: int = ROWS) -> Codes:
    torch.manual_seed(bits)
    values = torch.randint(0, 2**bits, (ROWS, COLUMNS), dtype=torch.uint8)
    zero = torch.randint(0, 2**bits, (rows, groups))
    return Codes(values, torch.rand(rows, groups) + 0.1, zero, bits, None if groups == 1 else COLUMNS // groups)


def check(own: Sequence[Codes], module: Layers, stored: torch.dtype = torch.float32) -> ov.Model:
    """OpenVINO computes of codes what torch computes of the weights that they were made into."""
    model = converted(graph(module), {f"deep.layers.{i}": one for i, one in enumerate(own)})
    finish(model, graph(module), stored)
    x = torch.randn(5, COLUMNS)
    found = ov.Core().compile_model(model, "CPU", EXACT)([x.numpy()])
    with torch.no_grad():
        for i, expected in enumerate(module(x)):
            torch.testing.assert_close(torch.from_numpy(found[i]), expected, rtol=1e-4, atol=1e-3)
    return model


def kept(model: ov.Model, number: int = 0) -> ov.Node:
    """The constant of a layer's codes, which has the weight's name."""
    return next(n for n in constants(model) if n.get_friendly_name() == f"self.layers.{number}.weight")


def test_codes_of_every_width_are_the_numbers_of_dequantize() -> None:
    own = [made for bits in BITS for made in (
        codes(bits), codes(bits, COLUMNS // GROUP), codes(bits, 1, 1), replace(codes(bits), zero_point=None))]  # fmt: skip
    model = check(own, Layers(own))
    for i, one in enumerate(own):
        assert kept(model, i).get_element_type() == CODES[one.bits]
        assert kept(model, i).get_byte_size() == ROWS * COLUMNS * one.bits // 8


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_scales_and_the_rest_have_the_stored_dtype(dtype: torch.dtype) -> None:
    own = [replace(codes(4, COLUMNS // GROUP), scale=codes(4, COLUMNS // GROUP).scale.to(dtype))]
    module = Layers(own)
    module.layers[0].bias.data = module.layers[0].bias.data.to(dtype).float()
    model = check(own, module, dtype)
    kinds = [n.get_element_type() for n in constants(model) if n.get_element_type().is_real()]
    assert [kind.get_size() for kind in kinds] == [2, 2]


def test_a_zero_point_between_two_codes_is_a_float_and_a_prescale_divides_the_inputs() -> None:
    between = codes(4, COLUMNS // GROUP)
    assert between.zero_point is not None
    between = replace(between, zero_point=between.zero_point + torch.rand(between.zero_point.shape))
    own = [between, replace(codes(4), prescale=torch.rand(COLUMNS) + 0.5)]
    model = check(own, Layers(own))
    assert [kept(model, i).get_element_type() for i in (0, 1)] == [ov.Type.u4] * 2
    assert [n.get_type_name() for n in model.get_ops()].count("Divide") == 1


@pytest.mark.thorough
def test_a_layer_that_is_not_as_it_was_made_is_an_error_and_a_number_that_would_be_rounded_stays_wide() -> None:
    module = Layers([codes(4)])
    with pytest.raises(RuntimeError, match=r"self.layers.0.weight: the graph's weight is not that of the codes"):
        converted(graph(module), {"deep.layers.0": replace(codes(4), scale=2 * codes(4).scale)})
    plain = converted(graph(module), {})
    with pytest.raises(RuntimeError, match=r"layer.weight: 0 constants of that name in the graph; right: 1"):
        put_codes(plain, {"self.other.layer.weight": codes(4)})
    narrow(plain, torch.float16)
    assert [n.get_element_type() for n in constants(plain)] == [ov.Type.f32] * 2
