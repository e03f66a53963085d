"""What onnxruntime computes of filled graphs is what torch computes with dequantized weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
import torch
from torch import Tensor

from blip2sweep.backends.onnxruntime.session import LEVELS, OrtSession, compiled
from blip2sweep.compression.quantize.codes import Codes, dequantize
from blip2sweep.compression.quantize.scheme import Scheme, Weights
from blip2sweep.exporting.onnx_graphs.filled import filled, layers_of
from blip2sweep.exporting.onnx_graphs.rounded import round_layers
from blip2sweep.exporting.onnx_graphs.saved import payload_of, save, weights_of
from blip2sweep.exporting.onnx_graphs.traced import traced
from blip2sweep.models.graphs import Graph
from blip2sweep.models.graphs.torch_session import TorchSession
from tests.exporting.onnx_graphs.toy import random_codes, toy_graph

UP, DOWN, HEAD = "model.part.up", "model.part.down", "model.part.head"
IDS = torch.tensor([[3, 1, 4], [1, 5, 9]])
Run = Callable[..., OrtSession]


@pytest.fixture(scope="module")
def graph() -> Graph:
    return toy_graph()


@pytest.fixture(scope="module")
def trace(graph: Graph) -> ir.Model:
    return traced(graph)


@pytest.fixture
def run(graph: Graph, trace: ir.Model, tmp_path: Path) -> Run:
    """A session of the graph with codes in it, in the file toy.onnx."""

    def made(codes: Mapping[str, Codes], level: str = "all", stored: torch.dtype | None = None) -> OrtSession:
        model = filled(trace, weights_of(graph), codes, stored)
        return OrtSession(compiled(save(model, graph, tmp_path), "cpu", level, 1))

    return made


def texts(session: OrtSession | TorchSession) -> Tensor:
    """Logits of three tokens from nothing, and of two more behind them."""
    session.start(2)
    first = session(ids=IDS)["logits"]
    return torch.cat([first, session(ids=IDS[:, :2])["logits"]], 1)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)  # logits are about 10


@contextmanager
def in_model(graph: Graph, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, these weights are in the graph's module."""
    held = weights_of(graph)
    before = {name: held[name].clone() for name in values}
    for name, value in values.items():
        held[name].copy_(value)
    try:
        yield
    finally:
        for name, value in before.items():
            held[name].copy_(value)


def operators(path: Path) -> Counter[str]:
    return Counter(n.op_type for n in onnx.load(path, load_external_data=False).graph.node)


@pytest.mark.parametrize("level", LEVELS)
def test_a_graph_without_codes_computes_what_torch_does(graph: Graph, run: Run, level: str) -> None:
    close(texts(run({}, level)), texts(TorchSession(graph)))


def test_states_are_kept_chosen_and_put_back(graph: Graph, run: Run) -> None:
    own, torchs = run({}), TorchSession(graph)
    for session in (own, torchs):
        session.start(2)
        session(ids=IDS)
        with session.unchanged():
            session(ids=IDS[:, :1])
        session.select(torch.tensor([1, 1, 0]))
    again = IDS[[1, 1, 0]]
    close(own(ids=again)["logits"], torchs(ids=again)["logits"])


FITS = [  # (bits, group_size, zero points, one scale of all, operator)
    (4, 16, "integer", False, "MatMulNBits"),
    (8, 16, None, False, "MatMulNBits"),
    (2, 16, "integer", False, "MatMulNBits"),
    (4, 16, "number", False, "MatMulNBits"),
    (4, 24, "integer", False, "DequantizeLinear"),  # which divides no row: the last group is shorter
    (2, 20, None, False, "DequantizeLinear"),
    (8, None, "integer", False, "DequantizeLinear"),
    (4, None, None, False, "DequantizeLinear"),
    (4, None, "integer", True, "DequantizeLinear"),
]


@pytest.mark.parametrize("level", ["none", "all"])
@pytest.mark.parametrize(("bits", "group_size", "zero", "whole", "operator"), FITS)
def test_codes_are_the_numbers_of_dequantize(
    graph: Graph, run: Run, tmp_path: Path, bits: int, group_size: int | None, zero: str | None, whole: bool,
    operator: str, level: str,
) -> None:  # fmt: skip
    codes = random_codes(weights_of(graph)[f"{DOWN}.weight"], bits, group_size, zero, whole)
    found = texts(run({DOWN: codes}, level))
    with in_model(graph, {f"{DOWN}.weight": dequantize(codes)}):
        close(found, texts(TorchSession(graph)))
    assert operators(tmp_path / "toy.onnx")[operator] == 1
    assert operators(tmp_path / "toy.onnx")["MatMul"] == 3 - (operator == "MatMulNBits")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("group_size", [16, None])
def test_scales_and_all_other_numbers_may_have_16_bits(
    graph: Graph, run: Run, tmp_path: Path, dtype: torch.dtype, group_size: int | None
) -> None:
    held = weights_of(graph)
    codes = random_codes(held[f"{UP}.weight"], 4, group_size, "integer")
    codes = replace(codes, scale=codes.scale.to(dtype))
    rounded = {name: x.to(dtype).float() for name, x in held.items()} | {f"{UP}.weight": dequantize(codes)}
    with in_model(graph, rounded):
        close(texts(run({UP: codes}, stored=dtype)), texts(TorchSession(graph)))
    there = onnx.load(tmp_path / "toy.onnx", load_external_data=False).graph.initializer
    assert not [x.name for x in there if x.data_type == onnx.TensorProto.FLOAT]


def test_numbers_that_16_bits_would_change_stay(graph: Graph, run: Run) -> None:
    close(texts(run({}, stored=torch.float16)), texts(TorchSession(graph)))


def test_inputs_are_divided_by_a_prescale(graph: Graph, run: Run) -> None:
    codes = random_codes(weights_of(graph)[f"{UP}.weight"], 4, 16, "integer")
    codes = replace(codes, prescale=torch.linspace(0.5, 2, 32))
    found = texts(run({UP: codes}))
    with in_model(graph, {f"{UP}.weight": dequantize(codes)}):
        close(found, texts(TorchSession(graph)))


def test_the_payload_has_tied_weights_once_and_codes_by_their_bits(graph: Graph, run: Run, tmp_path: Path) -> None:
    weight = weights_of(graph)[f"{DOWN}.weight"]
    numbers = sum(x.numel() for x in graph.module.parameters())
    run({})
    assert payload_of(tmp_path / "toy.onnx") == pytest.approx(4 * numbers, abs=100)  # and a few lengths
    run({DOWN: random_codes(weight, 2, None, None)})
    expected = 4 * (numbers - weight.numel()) + weight.numel() // 4 + 4 * len(weight)
    assert payload_of(tmp_path / "toy.onnx") == pytest.approx(expected, abs=100)
    assert (tmp_path / "toy.onnx.data").stat().st_size < expected + 1000


def test_layers_have_their_paths_in_the_model(trace: ir.Model) -> None:
    assert layers_of(trace).keys() == {UP, DOWN, HEAD}
    assert f"{UP}.weight" in {x.name for x in trace.graph.inputs}


# ---- what onnxruntime rounds


@pytest.mark.parametrize(
    ("method", "operator", "close"), [("ort_int8", "MatMulInteger", 0.3), ("ort_int4", "MatMulNBits", 2)]
)
def test_onnxruntime_rounds_exactly_the_layers_that_are_left_to_it(
    graph: Graph, trace: ir.Model, tmp_path: Path, method: str, operator: str, close: float
) -> None:
    path = save(filled(trace, weights_of(graph), {}, left={UP}), graph, tmp_path)
    weights = Weights(method, 8 if method == "ort_int8" else 4, group_size=16, symmetric=False)
    round_layers(path, {UP: Scheme(weights)})
    assert operators(path)[operator] == 1
    assert operators(path)["MatMul"] == 2
    found, expected = texts(OrtSession(compiled(path, "cpu", "all", 1))), texts(TorchSession(graph))
    assert 1e-3 < (found - expected).abs().max() < close


def test_a_layer_that_it_does_not_round_is_an_error(graph: Graph, trace: ir.Model, tmp_path: Path) -> None:
    path = save(filled(trace, weights_of(graph), {}), graph, tmp_path)
    with pytest.raises(RuntimeError, match=f"rounded 0 layers, not 1, such as {UP}"):
        round_layers(path, {UP: Scheme(Weights("ort_int8", 8))})
