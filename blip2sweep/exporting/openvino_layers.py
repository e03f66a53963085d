"""Which nodes of an OpenVINO graph are which linear layers of the model, and what their weights are stored as."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import openvino as ov

# What stands between a constant and the operation that it is a weight of.
BETWEEN = ("Convert", "Subtract", "Multiply", "Reshape", "FakeQuantize", "Transpose")
PLAIN = ("f32", "f16", "bf16", "f64")


def layer_of(node: str, paths: Mapping[str, str]) -> str | None:
    """The model path of the module that a node belongs to; None where it is outside of all that are named.

    node: its name, such as `__module.vision_model.encoder.layers.0.mlp.fc1/aten::linear/MatMul`. paths: of the graph
    (`models.graphs.Graph.paths`).
    """
    inside = node.removeprefix("__module.").partition("/")[0]
    for own, path in sorted(paths.items(), key=lambda item: -len(item[0])):
        if inside == own or inside.startswith(f"{own}."):
            return path + inside[len(own) :]
    return None


def multiplications(model: ov.Model, paths: Mapping[str, str]) -> dict[str, list[ov.Node]]:
    """{model path of a layer: the nodes that multiply by its weight}."""
    found: dict[str, list[ov.Node]] = {}
    for node in model.get_ops():
        if node.get_type_name() == "MatMul" and weight_of(node) is not None:
            path = layer_of(node.get_friendly_name(), paths)
            if path is not None:
                found.setdefault(path, []).append(node)
    return found


def weight_of(node: ov.Node) -> ov.Node | None:
    """The constant that the second input of a multiplication is made of; None where it is no constant."""
    before = node.input_value(1).get_node()
    while before.get_type_name() in BETWEEN:
        before = before.input_value(0).get_node()
    return before if before.get_type_name() == "Constant" else None


def stored_as(constant: ov.Node) -> str:
    """The type of a constant, such as `u4`."""
    return str(constant.get_element_type().get_type_name())


def compressed(model: ov.Model, paths: Mapping[str, str]) -> dict[str, str]:
    """{what reads it: the type} of every constant that is stored in a narrow type: a layer by its model path, anything
    else by the name of the node, so that an embedding or a convolution is seen as well."""
    found: dict[str, str] = {}
    for constant in model.get_ops():
        if constant.get_type_name() == "Constant" and _is_narrow(constant):
            for reader in readers(constant):
                name = reader.get_friendly_name()
                own = layer_of(name, paths) if reader.get_type_name() == "MatMul" else None
                found[own or name] = stored_as(constant)
    return found


def _is_narrow(constant: ov.Node) -> bool:
    """Whether a constant has numbers of few bits. Indices, shapes and masks are not meant."""
    return stored_as(constant) not in (*PLAIN, "i64", "i32", "boolean")


def readers(node: ov.Node) -> Iterator[ov.Node]:
    """The operations that read a node, behind what only changes its form."""
    for output in node.outputs():
        for target in output.get_target_inputs():
            reader = target.get_node()
            if reader.get_type_name() in BETWEEN:
                yield from readers(reader)
            else:
                yield reader
