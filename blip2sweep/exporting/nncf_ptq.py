"""NNCF's post-training quantization of some layers of a graph: W8A8 with SmoothQuant and fast bias correction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from blip2sweep.exporting.nncf_inputs import Item
from blip2sweep.exporting.openvino_layers import readers, weight_of

if TYPE_CHECKING:
    import openvino as ov

METHOD = "nncf_ptq"
SMOOTHED = "nncf_smooth_quant"  # in the names of the nodes that divide inputs


def quantize(model: ov.Model, nodes: Sequence[str], items: Sequence[Item], alpha: float) -> ov.Model:
    """The graph with these multiplications in W8A8. nodes: their names. items: calibration inputs. alpha: of SmoothQuant.

    Raises RuntimeError where inputs of other operations are quantized, or of one of these are not.
    """
    import nncf
    from nncf.quantization import advanced_parameters as advanced

    own, wanted = model.clone(), {*nodes}
    roots = _as_inputs(own, wanted)
    items = [{**item, **roots} for item in items]
    others = [n for o in own.get_ops() if o.get_type_name() not in ("Constant", "Parameter", "Result")
              and (n := o.get_friendly_name()) not in wanted]  # fmt: skip
    made = nncf.quantize(
        own, nncf.Dataset(items), subset_size=len(items), model_type=nncf.ModelType.TRANSFORMER,
        ignored_scope=nncf.IgnoredScope(names=others, validate=False),
        advanced_parameters=advanced.AdvancedQuantizationParameters(
            smooth_quant_alphas=advanced.AdvancedSmoothQuantParameters(matmul=alpha)
        ),
    )  # fmt: skip
    _unsmooth(made, model, wanted)
    _check_inputs(made, wanted)
    _as_constants(made, roots)
    return cast("ov.Model", made)


# ---- NNCF leaves alone what depends on no input, such as the first layers of a Q-Former, which read learned queries


def _as_inputs(model: ov.Model, wanted: set[str]) -> Item:
    """Make inputs of the constants that are repeated for each row and that layers are computed of. Returns their values."""
    from openvino import opset13 as ops

    found: Item = {}
    for node in [n for n in model.get_ordered_ops() if n.get_type_name() == "Broadcast"]:
        constant = node.input_value(0).get_node()
        if constant.get_type_name() == "Constant" and _leads_to(node, wanted):
            name = f"{constant.get_friendly_name()}/queries"
            parameter = ops.parameter(constant.get_output_shape(0), constant.get_element_type())
            parameter.set_friendly_name(name)
            parameter.output(0).get_tensor().set_names({name})
            node.input(0).replace_source_output(parameter.output(0))
            model.add_parameters([parameter])
            found[name] = constant.data.copy()
    model.validate_nodes_and_infer_types()
    return found


def _leads_to(node: ov.Node, wanted: set[str]) -> bool:
    """Whether one of these nodes is computed of a node."""
    seen, todo = {node.get_friendly_name()}, [node]
    while todo:
        for target in (t for o in todo.pop().outputs() for t in o.get_target_inputs()):
            name = target.get_node().get_friendly_name()
            if name in wanted:
                return True
            if name not in seen:
                seen.add(name)
                todo.append(target.get_node())
    return False


def _as_constants(model: ov.Model, values: Item) -> None:
    from openvino import opset13 as ops

    for parameter in [p for p in model.get_parameters() if p.get_friendly_name() in values]:
        constant = ops.constant(values[parameter.get_friendly_name()])
        constant.set_friendly_name(parameter.get_friendly_name())
        parameter.output(0).replace(constant.output(0))
        model.remove_parameter(parameter)


# ---- what was done to other layers


def _unsmooth(made: ov.Model, original: ov.Model, wanted: set[str]) -> None:
    """Take back what SmoothQuant, which knows no ignored scope, did to layers that are not quantized.

    Where every reader of a divided input is such a layer, the division goes and the layers have their own weights.
    """
    weights = {
        n.get_friendly_name(): w for n in original.get_ops() if n.get_type_name() == "MatMul" and (w := weight_of(n))
    }
    for node in [n for n in made.get_ops() if n.get_friendly_name().endswith(SMOOTHED)]:
        read = [*readers(node)]
        if {r.get_friendly_name() for r in read}.isdisjoint(wanted):
            for reader in read:
                own = weight_of(reader)
                assert own is not None
                _replace(own, weights[reader.get_friendly_name()])
            node.output(0).replace(node.input_value(0))


def _replace(constant: ov.Node, by: ov.Node) -> None:
    """Exchange the numbers of a constant."""
    import openvino as ov

    copy = ov.op.Constant(by.data.copy())
    copy.set_friendly_name(by.get_friendly_name())
    constant.output(0).replace(copy.output(0))


def _check_inputs(made: ov.Model, wanted: set[str]) -> None:
    """Raise RuntimeError unless exactly the inputs of these multiplications are quantized."""
    found = {r.get_friendly_name() for n in made.get_ops() if n.get_type_name() == "FakeQuantize" for r in readers(n)}
    if found != wanted:
        raise RuntimeError(f"inputs quantized differ from the recipe: {sorted(found ^ wanted)[:5]} …")
