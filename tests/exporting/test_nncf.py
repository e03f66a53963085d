"""NNCF compresses graphs: exactly the layers of the recipe, in the types and sizes that planning counts."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import cast

import numpy as np
import openvino as ov
import pytest
import torch
from torch import Tensor, nn

from blip2sweep.apply.calibration.batches import CalibrationBatches
from blip2sweep.compression.quantize import METHODS
from blip2sweep.compression.quantize.scheme import Scheme, Weights
from blip2sweep.compression.step import plain
from blip2sweep.exporting import nncf
from blip2sweep.exporting.ir.convert import converted
from blip2sweep.exporting.nncf import Compression, parts_of
from blip2sweep.exporting.nncf_inputs import GraphInputs
from blip2sweep.exporting.openvino_layers import compressed, layer_of, multiplications, stored_as
from blip2sweep.models.graphs import Graph, Graphs, Input
from blip2sweep.models.load import Loaded, load
from blip2sweep.models.part import Linear
from blip2sweep.planning.cell import Cell
from blip2sweep.recipe.back_end import left
from blip2sweep.wire.model_section import ModelSection
from tests.checkpoints import TINY, tiny_config
from tests.composing import plan
from tests.miniatures import blip_config, write_blip
from tests.models.graphs.in_torch import graphs_of
from tests.params import quick

ROWS = {0: "rows"}
NNCF = [m.name for m in METHODS.values() if m.backend == "openvino"]


# ---- a graph of a convolution, an embedding, a few layers and a head


class Toy(nn.Module):
    """Pixels and tokens -> logits: it has what may not be compressed by accident."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patch, self.embedding = nn.Conv2d(3, 64, 4, 4), nn.Embedding(100, 64)
        self.queries = nn.Parameter(torch.randn(1, 5, 64))
        self.blocks = nn.ModuleList(
            [nn.ModuleDict({"fc1": nn.Linear(64, 128), "fc2": nn.Linear(128, 64)}) for _ in range(3)]
        )
        self.head = nn.Linear(64, 100, bias=False)

    def forward(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor]:
        seen = self.patch(pixels).flatten(2).transpose(1, 2)
        asked = self.blocks[0]["fc1"](self.queries.expand(pixels.shape[0], -1, -1)).relu()  # type: ignore[index]
        x = torch.cat([seen, self.embedding(tokens), self.blocks[0]["fc2"](asked)], 1)  # type: ignore[index]
        for block in self.blocks[1:]:
            x = x + block["fc2"](block["fc1"](x).relu())  # type: ignore[index]
        return (self.head(x),)


class Given:
    """Calibration inputs that are there."""

    def of(self, name: str) -> list[dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]]:
        made = np.random.default_rng(0)
        return [
            {"pixels": made.normal(size=(1, 3, 8, 8)).astype("f4"), "tokens": made.integers(0, 100, (1, 6))}
            for _ in range(4)
        ]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.m = Toy()

    def forward(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor]:
        return cast("tuple[Tensor]", self.m(pixels, tokens))


@pytest.fixture(scope="module")
def toy() -> tuple[Graphs, ov.Model]:
    inputs = (
        Input("pixels", torch.zeros(2, 3, 8, 8), ROWS),
        Input("tokens", torch.zeros(2, 6, dtype=torch.long), {**ROWS, 1: "tokens"}),
    )
    graph = Graph("toy", Net().eval(), inputs, ("logits",), {"m": "model.tower"})
    return Graphs((graph,), lambda _: pytest.fail("nothing is run")), converted(graph, {})


def scheme(method: str, **more: object) -> Scheme:
    own = METHODS[method]
    options = {k: v for k, v in own.options.items() if k != "group_size"}
    return Scheme(Weights(method, own.bits[0], type=own.type, **{**options, **more}))


def compress(toy: tuple[Graphs, ov.Model], schemes: Mapping[str, Scheme]) -> ov.Model:
    graphs, model = toy
    make = cast("Callable[[], GraphInputs]", Given)
    return Compression(graphs, {"toy": model}, schemes, make).all()["toy"]


LAYERS = [f"model.tower.blocks.{i}.{leaf}" for i in range(2) for leaf in ("fc1", "fc2")]
TYPES = {"nncf_int8_sym": "i8", "nncf_int8_asym": "u8", "nncf_int4_sym": "i4", "nncf_nf4": "nf4", "nncf_ptq": "i8"}


@pytest.mark.parametrize("method", quick(NNCF))
def test_exactly_the_layers_of_the_recipe_are_compressed(toy: tuple[Graphs, ov.Model], method: str) -> None:
    """Patch embedding, embedding, head and the third block stay; and so do the numbers of all that stays."""
    graph, before = toy[0].graphs[0], weights(toy[1], toy[0].graphs[0])
    made = compress(toy, dict.fromkeys(LAYERS, scheme(method)))
    assert compressed(made, graph.paths) == dict.fromkeys(LAYERS, TYPES.get(method, "u4"))
    after = weights(made, graph)
    for path in before.keys() - {*LAYERS}:
        assert np.array_equal(before[path], after[path]), path
    assert compressed(toy[1], graph.paths) == {}


def weights(model: ov.Model, graph: Graph) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    """{layer: its constant's numbers} of those in float32."""
    from blip2sweep.exporting.openvino_layers import weight_of

    found = {path: weight_of(nodes[0]) for path, nodes in multiplications(model, graph.paths).items()}
    return {path: node.data.copy() for path, node in found.items() if node is not None and stored_as(node) == "f32"}


def test_layers_of_several_schemes_are_compressed_one_after_the_other(toy: tuple[Graphs, ov.Model]) -> None:
    several = ("nncf_int4_asym", "nncf_ptq", "nncf_gptq", "nncf_int8_sym")
    grouped = {LAYERS[0]: scheme(several[0], strategy="group", group_size=32)}
    made = compress(toy, grouped | {p: scheme(m) for p, m in zip(LAYERS[1:], several[1:], strict=True)})
    found = compressed(made, toy[0].graphs[0].paths)
    assert [found[p] for p in LAYERS] == ["u4", "i8", "u4", "i8"]
    quantized = [n for n in made.get_ops() if n.get_type_name() == "FakeQuantize"]
    assert len(quantized) == 1  # the input of the layer in W8A8, and nothing else


def test_the_inputs_of_other_layers_are_not_smoothed(toy: tuple[Graphs, ov.Model]) -> None:
    made = compress(toy, {LAYERS[2]: scheme("nncf_ptq")})
    assert sum(n.get_friendly_name().endswith("nncf_smooth_quant") for n in made.get_ops()) == 1


def test_layers_that_depend_on_no_input_are_quantized_too(toy: tuple[Graphs, ov.Model]) -> None:
    """A Q-Former's first layers read learned queries."""
    made = compress(toy, {LAYERS[0]: scheme("nncf_ptq")})
    assert compressed(made, toy[0].graphs[0].paths) == {LAYERS[0]: "i8"}
    assert [p.get_any_name() for p in made.inputs] == ["pixels", "tokens"]


@pytest.mark.parametrize(
    ("part_of", "told"),
    [
        ({}, ["of a", "of b", "of c"]),
        (dict.fromkeys("abc", "one"), ["of a", "of b", "of c"]),
        ({"a": "one", "b": "two", "c": "two"}, ["of a", "exchange a", "of b", "of c"]),
        ({"a": "one", "b": "one", "c": "two"}, ["of a", "of b", "exchange a", "exchange b", "of c"]),
    ],
)
def test_a_part_in_several_graphs_is_measured_in_full_precision(
    monkeypatch: pytest.MonkeyPatch, part_of: dict[str, str], told: list[str]
) -> None:
    """So `model` is `full` where one part is compressed, as its key says."""
    done = list[str]()

    class Watched:
        def of(self, name: str) -> list[object]:
            done.append(f"of {name}")
            return []

        def exchange(self, name: str, model: object) -> None:
            assert model == f"{name} compressed"
            done.append(f"exchange {name}")

    for name, value in {
        "multiplications": lambda model, paths: {model: ()}, "_groups": lambda own, there: [()], "_check": lambda *_: None,
        "_compress": lambda model, group, items: f"{model} compressed", "compressed": lambda *_: {}, "_quietly": nullcontext,
    }.items():  # fmt: skip
        monkeypatch.setattr(nncf, name, value)
    graphs = Graphs(tuple(Graph(n, nn.Identity(), (), (), {}) for n in "abc"), lambda _: pytest.fail("nothing is run"))
    given, make = cast("dict[str, ov.Model]", {n: n for n in "abc"}), cast("Callable[[], GraphInputs]", Watched)
    Compression(graphs, given, dict.fromkeys("abc", scheme("nncf_gptq")), make, part_of).all()
    assert done == told


def test_a_layer_that_no_graph_has_is_an_error(toy: tuple[Graphs, ov.Model]) -> None:
    with pytest.raises(RuntimeError, match=r"differ from the recipe: no graph has \['model.tower.gone'\]"):
        compress(toy, {"model.tower.gone": scheme("nncf_int8_sym")})


def test_what_is_compressed_by_accident_is_an_error(
    toy: tuple[Graphs, ov.Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blip2sweep.exporting.nncf._others", lambda model, nodes: [])
    with pytest.raises(RuntimeError, match=r"layers compressed in toy differ from the recipe: .*patch"):
        compress(toy, {LAYERS[0]: scheme("nncf_int8_sym")})


@pytest.mark.parametrize("method", NNCF)
@pytest.mark.parametrize("group_size", [None, 32])
def test_what_is_stored_of_a_layer_is_what_planning_counts(
    toy: tuple[Graphs, ov.Model], method: str, group_size: int | None
) -> None:
    if group_size and "group" not in METHODS[method].strategies:
        return
    own = scheme(method, strategy="group" if group_size else "channel", group_size=group_size)
    layer = Linear(LAYERS[2], "fc1", "mlp", "tower", 1, 128, 64, True)
    made = compress(toy, {LAYERS[2]: own})
    numbers = bytes_of(made) - bytes_of(toy[1]) + 4 * layer.weights
    counted = own.stored(layer, plain(layer)).weight_bits / 8
    assert numbers == pytest.approx(counted, rel=0.001)


def bytes_of(model: ov.Model) -> int:
    """Of all constants that are no shapes or indices."""
    constants = [n for n in model.get_ops() if n.get_type_name() == "Constant"]
    return sum(n.get_byte_size() for n in constants if stored_as(n) not in ("i64", "i32"))


def test_names_of_nodes_are_paths_of_the_model() -> None:
    paths = {"m": "vision_model", "m.inner": "other"}
    assert layer_of("__module.m.blocks.0.fc1/aten::linear/MatMul", paths) == "vision_model.blocks.0.fc1"
    assert layer_of("__module.m.inner.fc/aten::linear/MatMul_1", paths) == "other.fc"
    assert layer_of("__module.more.fc/aten::linear/MatMul", paths) is None


# ---- the embedded model


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load(cast("ModelSection", tiny_config()), TINY)


@pytest.fixture(scope="module")
def graphs(loaded: Loaded) -> Graphs:
    from blip2sweep.models.blip2.graphs import graphs as made

    return made(loaded.model, loaded.processor, loaded.family)


@pytest.fixture(scope="module")
def models(graphs: Graphs) -> dict[str, ov.Model]:
    return {g.name: converted(g, {}) for g in graphs.graphs}


@pytest.mark.thorough
def test_nothing_is_reported_to_anybody() -> None:
    code = (
        "import blip2sweep.exporting.ir.convert, nncf, openvino.tools.ovc.telemetry_utils as ovc\n"
        "from nncf.telemetry.wrapper import NNCFTelemetry, telemetry\n"
        "print(ovc.tm.__name__, isinstance(telemetry, NNCFTelemetry))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.split()[-2:] == ["openvino.tools.ovc.telemetry_stub", "False"]


def cell(*words: str) -> Cell:
    made = plan("backend=openvino", "task.limit=8", *words)
    return made.cells[str(made.keys[0])]


@pytest.mark.thorough
def test_graphs_are_measured_on_the_calibration_samples(
    loaded: Loaded, graphs: Graphs, models: dict[str, ov.Model]
) -> None:
    """What a graph reads is what the stage reads in torch on the same samples, row by row."""
    planned = cell("part=llm", "quant=nncf_gptq", "calibration.n_samples=6").calibration
    assert planned is not None
    inputs, own = GraphInputs(loaded, graphs, models, planned), CalibrationBatches(loaded, planned)
    pixels = np.concatenate([item["pixels"] for item in inputs.of("vision")])
    assert np.array_equal(pixels, own.pixels.values.numpy())
    features = np.concatenate([item["features"] for item in inputs.of("bridge")])
    assert features == pytest.approx(own._into(1)[0].values.numpy(), abs=1e-4)
    read = inputs.of("language")
    prompts, references = own._texts
    assert len(read) == len(planned.data.samples)
    for item, prompt, reference in zip(read, prompts, references, strict=True):
        text = item["input_ids"][0][~item["is_picture"][0]]
        assert [*text] == loaded.language.as_read(prompt, reference)
        assert item[graphs.graphs[-1].states[0].past].shape[2] == 0


@pytest.mark.thorough
@pytest.mark.parametrize(
    "words",
    [
        ("quant=nncf_int8_asym",),
        ("quant=nncf_int4_sym", "quant.group_size=32"),
        ("quant=nncf_awq_scale_estimation", "quant.group_size=32", "calibration.n_samples=4"),
        ("quant=nncf_ptq", "calibration.n_samples=4", "calibration.upstream=model"),
    ],
)
def test_the_ir_has_the_size_that_the_table_says(
    loaded: Loaded, graphs: Graphs, models: dict[str, ov.Model], words: tuple[str, ...], tmp_path: Path
) -> None:
    planned = cell("part=all", *words)
    samples = planned.calibration

    def inputs() -> GraphInputs:
        assert samples is not None
        return GraphInputs(loaded, graphs, models, samples)

    part_of = parts_of(planned.recipe) if samples is not None and samples.upstream == "model" else {}
    made = Compression(graphs, models, left(planned.recipe), inputs, part_of).all()
    kinds = Counter(kind for g in graphs.graphs for kind in compressed(made[g.name], g.paths).values())
    assert sum(kinds.values()) == 108
    written = sum(saved(m, tmp_path / f"{name}.xml") for name, m in made.items())
    before = sum(saved(m, tmp_path / f"{name}.xml") for name, m in models.items())
    assert written - before == pytest.approx(counted(planned), rel=0.02)
    assert written == pytest.approx(before + counted(planned), rel=0.01)


def saved(model: ov.Model, xml: Path) -> int:
    ov.save_model(model.clone(), xml, compress_to_fp16=False)
    return xml.with_suffix(".bin").stat().st_size


def counted(planned: Cell) -> float:
    """The bytes by which planning says the quantized layers differ from float32."""
    pairs = [*planned.recipe.touched()]
    return sum(s.stored(x, plain(x)).weight_bits / 8 - 4 * x.weights for x, s in pairs)


@pytest.mark.thorough
def test_layers_of_encoder_and_decoder_are_measured_in_their_own_graphs(tmp_path: Path) -> None:
    """A part of BLIP's answering model is in several graphs; its decoder reads the answer token by token, behind states."""
    name = "blip-vqa-base"
    own = load(cast("ModelSection", blip_config(name)), write_blip(tmp_path, name))
    made = graphs_of(own, blip_config(name))
    samples = cell("task=shapes_vqa", "part=llm", "quant=nncf_gptq", "calibration.n_samples=2").calibration
    assert samples is not None
    given = {g.name: converted(g, {}) for g in made.graphs}
    schemes = {x.path: scheme("nncf_gptq") for part in own.anatomy.parts.values() for x in part.linears}
    found = Compression(made, given, schemes, lambda: GraphInputs(own, made, given, samples)).all()
    layers = [path for g in made.graphs for path in compressed(found[g.name], g.paths)]
    assert sorted(layers) == sorted(schemes)
