"""Puts the weights and codes of a recipe into a traced graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import Tensor

from blip2sweep.compression.quantize.codes import Codes
from blip2sweep.exporting.onnx_graphs.layouts import operator_of
from blip2sweep.exporting.onnx_graphs.packing import bytes_tensor, codes_tensor, float_tensor, packed
from blip2sweep.exporting.onnx_graphs.traced import DOMAIN, LINEAR

MICROSOFT = "com.microsoft"
FP32 = 1  # MatMulNBits' accuracy level where inputs are not rounded to 8 bits


def filled(
    traced: ir.Model, weights: Mapping[str, Tensor], codes: Mapping[str, Codes], stored: torch.dtype | None = None,
    left: Collection[str] = (),
) -> ir.Model:  # fmt: skip
    """A copy of a traced graph with its weights.

    weights: {path: tensor} of all that the graph reads. codes: {path of a linear layer}, which stand in place of its
    weight. stored: weights are written in that dtype where that loses
    nothing, and cast to their own when the graph is loaded. left: paths of
    layers that onnxruntime's own tools round afterwards: a MatMul of that name with a constant.
    """
    model = traced.clone()
    fill = _Filling(model, weights, stored, left)
    for path, node in layers_of(model).items():
        fill.linear(path, node, codes.get(path))
    fill.rest()
    model.opset_imports.pop(DOMAIN, None)
    model.opset_imports[MICROSOFT] = 1
    model.ir_version = 13  # the first one with types of 2 bits
    return model


def layers_of(traced: ir.Model) -> dict[str, ir.Node]:
    """{path in the model: node} of the linear layers in a traced graph."""
    return {n.attributes["path"].as_string(): n for n in traced.graph if n.domain == DOMAIN and n.op_type == LINEAR}


@dataclass(eq=False)
class _Filling:
    model: ir.Model
    weights: Mapping[str, Tensor]
    stored: torch.dtype | None
    left: Collection[str]

    def linear(self, path: str, node: ir.Node, codes: Codes | None) -> None:
        """Exchange a `LINEAR` node for the operators that compute it."""
        x, weight, *bias = node.inputs
        assert x is not None
        assert weight is not None
        made = self._float(path, node, x, weight) if codes is None else self._coded(path, node, x, codes)
        if bias:
            assert bias[0] is not None
            made = self._node(node, "Add", (made, bias[0]), name=f"{path}.bias_add")
        made.name, made.type, made.shape = node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape
        ir.convenience.replace_all_uses_with(node.outputs[0], made, replace_graph_outputs=True)
        self.model.graph.remove(node, safe=True)

    def rest(self) -> None:
        """Make initializers of the inputs that are weights. Those that nothing reads are left out."""
        for value in [v for v in self.model.graph.inputs if v.name in self.weights]:
            self.model.graph.inputs.remove(value)
            if value.uses():
                self._store(value)

    # ---- layers

    def _float(self, path: str, node: ir.Node, x: ir.Value, weight: ir.Value) -> ir.Value:
        if path in self.left:
            constant = self._constant(f"{path}.turned", float_tensor(self.weights[f"{path}.weight"].T))
            return self._node(node, "MatMul", (x, constant), name=path)
        turned = self._node(node, "Transpose", (weight,), {"perm": [1, 0]}, f"{path}.transpose")
        return self._node(node, "MatMul", (x, turned), name=path)

    def _coded(self, path: str, node: ir.Node, x: ir.Value, codes: Codes) -> ir.Value:
        if codes.prescale is not None:
            divisor = self._number(f"{path}.prescale", codes.prescale, node)
            x = self._node(node, "Div", (x, divisor), name=f"{path}.div")
        zero = codes.zero_point
        float_zero = zero is not None and zero.is_floating_point()
        operator = operator_of(
            codes.bits, codes.values.shape[1], codes.group_size, float_zero, codes.scale.shape != (len(codes.values), 1)
            and codes.group_size is None,
        )  # fmt: skip
        if operator is None:
            raise RuntimeError(f"{path}: its codes were not refused, and no operator of ONNX holds them")
        return (self._n_bits if operator == "MatMulNBits" else self._dequantized)(path, node, x, codes)

    def _n_bits(self, path: str, node: ir.Node, x: ir.Value, codes: Codes) -> ir.Value:
        """com.microsoft.MatMulNBits: codes (out, blocks, bytes of a block)."""
        (out, row), bits = codes.values.shape, codes.bits
        size = codes.group_size or row
        blocks = packed(codes.values.view(out, row // size, size), bits)
        inputs = [
            x,
            self._constant(f"{path}.codes", bytes_tensor(blocks)),
            self._number(f"{path}.scale", codes.scale, node),
        ]
        zero = codes.zero_point
        if zero is not None and zero.is_floating_point():
            inputs.append(self._number(f"{path}.zero_point", zero, node))
        elif zero is not None:
            inputs.append(self._constant(f"{path}.zero_point", bytes_tensor(packed(zero.to(torch.uint8), bits))))
        attributes = {"K": row, "N": out, "bits": bits, "block_size": size, "accuracy_level": FP32}
        return self._node(node, "MatMulNBits", inputs, attributes, path, MICROSOFT)

    def _dequantized(self, path: str, node: ir.Node, x: ir.Value, codes: Codes) -> ir.Value:
        """DequantizeLinear of the transposed codes (in, out), then MatMul."""
        scale, zero, whole = codes.scale.T, codes.zero_point, codes.scale.numel() == 1
        shape = () if whole else scale.shape if codes.group_size else scale.shape[1:]
        inputs = [
            self._constant(f"{path}.codes", codes_tensor(codes.values.T, codes.bits, zero is not None)),
            self._number(f"{path}.scale", scale.reshape(shape), node),
        ]
        if zero is not None:
            own = zero.to(torch.uint8).T.reshape(shape)
            inputs.append(self._constant(f"{path}.zero_point", codes_tensor(own, codes.bits, True)))
        attributes = {"axis": 0, "block_size": codes.group_size} if codes.group_size else {} if whole else {"axis": 1}
        weight = self._node(node, "DequantizeLinear", inputs, attributes, f"{path}.dequantize")
        return self._node(node, "MatMul", (x, weight), name=path)

    # ---- pieces

    def _node(
        self, before: ir.Node, op: str, inputs: Sequence[ir.Value], attributes: Mapping[str, object] = {}, name: str = "",
        domain: str = "",
    ) -> ir.Value:  # fmt: skip
        made = ir.node(op, inputs, dict(attributes), domain=domain, name=name)
        made.outputs[0].name = f"{name}.out"
        self.model.graph.insert_before(before, made)
        return made.outputs[0]

    def _constant(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        tensor.name = name
        value = ir.Value(
            name=name, shape=ir.Shape([*tensor.shape]), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        self.model.graph.initializers[name] = value
        return value

    def _number(self, name: str, numbers: Tensor, before: ir.Node) -> ir.Value:
        """A constant that operators read in float32, whatever it is written in."""
        value = self._constant(name, float_tensor(numbers))
        if numbers.dtype == torch.float32:
            return value
        return self._node(before, "Cast", (value,), {"to": ir.DataType.FLOAT.value}, f"{name}.cast")

    def _store(self, value: ir.Value) -> None:
        """Give a weight its numbers: in the narrower dtype where that loses nothing."""
        assert value.name is not None
        tensor, dtype = self.weights[value.name], self.stored
        if (
            dtype is None
            or not tensor.is_floating_point()
            or not torch.equal(tensor.to(dtype).to(tensor.dtype), tensor)
        ):
            value.const_value = float_tensor(tensor)
            value.const_value.name = value.name
            self.model.graph.initializers[value.name] = value
            return
        made = self._number(f"{value.name}.stored", tensor.to(dtype), self.model.graph[0])
        ir.convenience.replace_all_uses_with(value, made)
