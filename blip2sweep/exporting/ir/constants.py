"""Weights in an OpenVINO model: the codes of a recipe in place of numbers, and 16-bit numbers where they lose nothing.

    codes (u1 … u8) -> Convert -> Subtract zero -> Multiply scale -> Reshape

All arithmetic is float32, so the weights are those of `dequantize` bit for bit. The CPU's kernels read u2, u4 and u8 as
they are; u1, u3 and u6 become float32 when a graph is compiled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import openvino as ov
import torch
from openvino import opset15 as ops
from torch import Tensor

from blip2sweep.compression.quantize.codes import Codes, dequantize

CODES = {1: ov.Type.u1, 2: ov.Type.u2, 3: ov.Type.u3, 4: ov.Type.u4, 6: ov.Type.u6, 8: ov.Type.u8}
NARROW = {torch.float16: ov.Type.f16, torch.bfloat16: ov.Type.bf16}


def put_codes(model: ov.Model, codes: Mapping[str, Codes]) -> None:
    """Put codes in place of weights. codes: {name of a weight's constant: its codes}.

    Raises RuntimeError where a weight is not in the model exactly once, or is another one than that of its codes.
    """
    found = {name: list[ov.Node]() for name in codes}
    for node in constants(model):
        if node.get_friendly_name() in found:
            found[node.get_friendly_name()].append(node)
    for name, nodes in found.items():
        if len(nodes) != 1:
            raise RuntimeError(f"{name}: {len(nodes)} constants of that name in the graph; right: 1")
        _put(nodes[0], name, codes[name])


def constants(model: ov.Model) -> Iterator[ov.Node]:
    return (node for node in model.get_ordered_ops() if node.get_type_name() == "Constant")


def _put(node: ov.Node, name: str, codes: Codes) -> None:
    if not np.array_equal(node.get_data(), dequantize(codes).cpu().numpy()):
        raise RuntimeError(f"{name}: the graph's weight is not that of the codes")
    targets = node.output(0).get_target_inputs()
    numbers = weight(codes, name)
    for target in targets:
        if codes.prescale is not None:
            _divide(target.get_node(), codes.prescale, name)
        target.replace_source_output(numbers)


def weight(codes: Codes, name: str) -> ov.Output:
    """(out, in) float32 for inputs that are divided by the prescale. The constant of the codes has the weight's name."""
    (rows, columns), groups = codes.values.shape, codes.scale.shape[1]
    shape = (rows, groups, columns // groups) if groups > 1 else (rows, columns)
    grouped = (lambda x: x[..., None]) if groups > 1 else (lambda x: x)
    values = whole(codes.values.reshape(shape), codes.bits)
    values.set_friendly_name(name)
    centred = ops.subtract(_float32(values), _float32(_zero(grouped(codes.zero), codes.bits, codes.zero_point)))
    numbers = ops.multiply(centred, _float32(floats(grouped(codes.scale))))
    if groups > 1:
        numbers = ops.reshape(numbers, ops.constant(np.array([rows, columns], np.int64)), special_zero=False)
    numbers.set_friendly_name(f"{name}/dequantized")
    return numbers.output(0)


def _zero(zero: Tensor, bits: int, own: Tensor | None) -> ov.Node:
    """The code of zero: of the codes' own type where it is a whole number, else a float of the type it is stored in."""
    if torch.equal(zero, zero.round()):
        return whole(zero, bits)
    assert own is not None
    return floats(zero.to(own.dtype))


def whole(values: Tensor, bits: int) -> ov.Node:
    """A constant of codes: 0 … 2^bits - 1."""
    return ops.constant(values.cpu().to(torch.uint8).numpy(), CODES[bits])


def floats(values: Tensor) -> ov.Node:
    """A constant of float32, float16 or bfloat16, as the tensor is."""
    kind = NARROW.get(values.dtype, ov.Type.f32)
    return ops.constant(values.detach().cpu().float().numpy(), kind)  # copied: a view would outlive the tensor


def _float32(node: ov.Node) -> ov.Node:
    return node if node.get_element_type() == ov.Type.f32 else ops.convert(node, np.float32)


def _divide(node: ov.Node, prescale: Tensor, name: str) -> None:
    """Divide the input of a multiplication by weights, once for all layers that read it."""
    if node.get_type_name() != "MatMul":
        raise RuntimeError(f"{name}: read by {node.get_type_name()}; right: MatMul")
    divided = ops.divide(node.input_value(0), _float32(floats(prescale[None])))
    node.input(0).replace_source_output(divided.output(0))


def narrow(model: ov.Model, dtype: torch.dtype) -> None:
    """Store the numbers of a model in 16 bits wherever all of a constant are such numbers, so that nothing is lost."""
    for node in list(constants(model)):
        if node.get_element_type() == ov.Type.f32:
            values = torch.from_numpy(node.get_data().copy())
            if torch.equal(values.to(dtype).float(), values):
                kept = floats(values.to(dtype))
                kept.set_friendly_name(node.get_friendly_name())
                wide = ops.convert(kept, np.float32).output(0)
                for target in node.output(0).get_target_inputs():
                    target.replace_source_output(wide)
