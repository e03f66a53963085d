"""NNCF compresses the OpenVINO graphs of a model: exactly the layers that a recipe names.

Layers of one scheme are compressed by one call of the library for each graph. Everything else is in its ignored scope,
by the name of the node. What came out is compared with the recipe: a patch embedding, a head or an embedding that was
compressed by accident is an error, and so is a layer that was not.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, cast

from blip2sweep.apply.calibration import same_samples
from blip2sweep.compression.quantize.scheme import Scheme, Weights
from blip2sweep.exporting import nncf_ptq
from blip2sweep.exporting.made import Made
from blip2sweep.exporting.nncf_inputs import GraphInputs, Item
from blip2sweep.exporting.openvino_layers import compressed, multiplications
from blip2sweep.machine.signal_stack import signal_stack_kept
from blip2sweep.models.graphs import Graph, Graphs
from blip2sweep.recipe import Recipe
from blip2sweep.recipe.back_end import left

if TYPE_CHECKING:
    import nncf
    import openvino as ov

CODES = ("i8", "u8", "i4", "u4", "nf4")
WEIGHTS = {  # method: (mode of asymmetric codes, mode of symmetric ones, what is searched)
    "nncf_int8_sym": ("INT8_SYM", "INT8_SYM", ()),
    "nncf_int8_asym": ("INT8_ASYM", "INT8_ASYM", ()),
    "nncf_int4_sym": ("INT4_SYM", "INT4_SYM", ()),
    "nncf_int4_asym": ("INT4_ASYM", "INT4_ASYM", ()),
    "nncf_nf4": ("NF4", "NF4", ()),
    "nncf_awq": ("INT4_ASYM", "INT4_SYM", ("awq",)),
    "nncf_awq_scale_estimation": ("INT4_ASYM", "INT4_SYM", ("awq", "scale_estimation")),
    "nncf_scale_estimation": ("INT4_ASYM", "INT4_SYM", ("scale_estimation",)),
    "nncf_gptq": ("INT4_ASYM", "INT4_SYM", ("gptq",)),
}


class Group(NamedTuple):
    """The layers of one graph that have one scheme. nodes: of their multiplications, in the graph's order."""

    weights: Weights
    nodes: tuple[str, ...]


def compress(made: Made, graphs: Graphs, models: Mapping[str, ov.Model]) -> dict[str, ov.Model]:
    """{name: graph} with the layers of a cell compressed that its recipe leaves to NNCF. models: {name: graph}, with
    states as inputs and outputs. They stay as they are."""
    chosen = same_samples(made.job["calibration"]) if made.job["calibration"] else None

    def inputs() -> GraphInputs:
        assert chosen is not None
        return GraphInputs(made.loaded, graphs, models, chosen)

    part_of = parts_of(made.recipe) if chosen is not None and chosen.upstream == "model" else {}
    return Compression(graphs, models, left(made.recipe), inputs, part_of).all()


def parts_of(recipe: Recipe) -> dict[str, str]:
    """{module path of a linear layer: the name of its part}."""
    return {x.path: name for name, part in recipe.parts.items() for x in part.part.linears}


@dataclass(eq=False)
class Compression:
    """Compresses the graphs of a model; the given ones stay as they are.

    models: {name: graph}, states as inputs and outputs. schemes: {module path: scheme} of methods of NNCF. make_inputs: of
    calibration; called where a method measures them. part_of: {module path: part} where a part is measured behind those
    before it as they are compressed (`calibration.upstream=model`); empty: behind all of them in full precision. Graphs of
    one part are measured in full precision either way, as layers of one graph are.
    """

    graphs: Graphs
    models: Mapping[str, ov.Model]
    schemes: Mapping[str, Scheme]
    make_inputs: Callable[[], GraphInputs]
    part_of: Mapping[str, str] = field(default_factory=dict)
    _waiting: dict[str, tuple[set[str], ov.Model]] = field(default_factory=dict, init=False)  # {graph: (parts, itself)}

    @cached_property
    def inputs(self) -> GraphInputs:
        return self.make_inputs()

    def all(self) -> dict[str, ov.Model]:
        """{name: graph}. Raises RuntimeError where the layers that were compressed are not those of `schemes`."""
        found, left = dict[str, "ov.Model"](), {*self.schemes}
        for graph in self.graphs.graphs:
            there = multiplications(self.models[graph.name], graph.paths)
            found[graph.name] = self._compressed(graph, there)
            left -= there.keys()
        if left:
            raise RuntimeError(f"layers compressed differ from the recipe: no graph has {sorted(left)[:5]} …")
        return found

    def _compressed(self, graph: Graph, there: Mapping[str, Sequence[ov.Node]]) -> ov.Model:
        own = {path: self.schemes[path] for path in there if path in self.schemes}
        model = self.models[graph.name]
        before = compressed(model, graph.paths)
        items = self._items(graph.name, own) if any(s.needs for s in own.values()) else []
        for group in _groups(own, there):
            with _quietly():
                model = _compress(model, group, items)
        _check(graph.name, before, compressed(model, graph.paths), set(own))
        if self.part_of and own:
            self._waiting[graph.name] = self._parts(own), model
        return model

    def _items(self, graph: str, own: Mapping[str, Scheme]) -> list[Item]:
        """The inputs of a graph. The compressed graphs of other parts are what runs before it from now on."""
        parts = self._parts(own) if self.part_of else set[str]()
        for name in [name for name, (others, _) in self._waiting.items() if others != parts]:
            self.inputs.exchange(name, self._waiting.pop(name)[1])
        return self.inputs.of(graph)

    def _parts(self, own: Mapping[str, Scheme]) -> set[str]:
        return {self.part_of[path] for path in own}


def _groups(own: Mapping[str, Scheme], there: Mapping[str, Sequence[ov.Node]]) -> list[Group]:
    """Layers by scheme, those that are measured first: they are measured among layers in full precision."""
    groups: dict[Weights, list[str]] = {}
    for path, scheme in own.items():
        names = [node.get_friendly_name() for node in there[path]]
        groups.setdefault(replace(scheme.weights, calibration=None), []).extend(names)
    order = sorted(groups, key=lambda w: (w.method in WEIGHTS, not WEIGHTS.get(w.method, ((), (), ()))[2], repr(w)))
    return [Group(w, tuple(groups[w])) for w in order]


def _compress(model: ov.Model, group: Group, items: Sequence[Item]) -> ov.Model:
    import nncf

    if group.weights.method == nncf_ptq.METHOD:
        return nncf_ptq.quantize(model, group.nodes, items, group.weights.alpha or 0.0)
    asymmetric, symmetric, searched = WEIGHTS[group.weights.method]
    mode = nncf.CompressWeightsMode[symmetric if group.weights.symmetric else asymmetric]
    options: dict[str, object] = dict.fromkeys(searched, True)
    if mode not in (nncf.CompressWeightsMode.INT8_SYM, nncf.CompressWeightsMode.INT8_ASYM):
        options |= {"group_size": group.weights.group_size or -1, "all_layers": True, "ratio": 1.0}
    if searched:
        options |= {"dataset": nncf.Dataset(items), "subset_size": len(items), "advanced_parameters": _all(len(items))}
    own = model.clone()
    options["ignored_scope"] = nncf.IgnoredScope(names=_others(own, group.nodes), validate=False)
    return cast("ov.Model", nncf.compress_weights(own, mode=mode, **options))


def _all(n: int) -> nncf.AdvancedCompressionParameters:
    """Every search sees all calibration inputs."""
    from nncf.quantization import advanced_parameters as advanced

    return advanced.AdvancedCompressionParameters(
        awq_params=advanced.AdvancedAWQParameters(subset_size=n),
        scale_estimation_params=advanced.AdvancedScaleEstimationParameters(subset_size=n),
        gptq_params=advanced.AdvancedGPTQParameters(subset_size=n),
    )


def _others(model: ov.Model, nodes: Sequence[str]) -> list[str]:
    """The names of all nodes that are not to be compressed."""
    plain = ("Constant", "Parameter", "Result")
    own = {*nodes}
    return [n for o in model.get_ops() if o.get_type_name() not in plain and (n := o.get_friendly_name()) not in own]


def _check(graph: str, before: Mapping[str, str], after: Mapping[str, str], wanted: set[str]) -> None:
    """Raise RuntimeError unless exactly these layers have become codes."""
    became = {name for name, kind in after.items() if before.get(name) != kind}
    wrong = became ^ wanted | {name for name in became if after[name] not in CODES}
    if wrong:
        raise RuntimeError(f"layers compressed in {graph} differ from the recipe: {sorted(wrong)[:5]} …")


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without progress bars on the worker's output. NNCF runs plugins of its own."""
    import nncf

    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()), signal_stack_kept():
        yield
