"""backend=onnxruntime: what it refuses in one line, what is in its key, and the texts that it writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from blip2sweep.backends.backend import identity_of
from blip2sweep.backends.onnxruntime import backend
from blip2sweep.backends.onnxruntime.backend import OnnxRuntime
from blip2sweep.backends.onnxruntime.session import OrtSession, compiled
from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.backends.torch.turns import FEWEST
from blip2sweep.errors import MissingExtra
from blip2sweep.wire.pack import BackendChoice, CellJob, JsonObject, Settings
from tests.checkpoints import fails
from tests.composing import plan

HERE = ("backend=onnxruntime", "task.limit=100")


def job(*words: str) -> CellJob:
    """The job of the cell with a recipe, or of the baseline where no cell has one."""
    cells = list(plan(*HERE, *words).cells.values())
    return next((c for c in cells if not c.recipe.empty), cells[0]).job()


def choice(**options: object) -> BackendChoice:
    return BackendChoice(name="onnxruntime", options=dict(options))


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"provder": "cpu"}, ("backend.options.provder", "did you mean 'provider'")),
        ({"provider": "tpu"}, ("backend.provider=tpu", "known: cpu, cuda")),
        ({"level": "fast"}, ("backend.level=fast", "known: all, basic, extended, none")),
        ({"provider": "cuda"}, ("backend.provider=cuda", "right: pip install onnxruntime-gpu")),
    ],
)
def test_options_that_it_has_not_are_one_line(options: JsonObject, said: Sequence[str]) -> None:
    with fails(*said):
        identity_of(choice(**options))


def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "installed", lambda name: name != "onnxscript")
    with pytest.raises(MissingExtra, match=r"needs onnxscript, .* right: pip install 'blip2sweep\[onnx\]'"):
        identity_of(choice())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("quant.bits=3",), ("3 bits have no type in ONNX (108 layers, such as", "right: 2, 4 or 8")),
        (("quant=hqq", "quant.bits=8"), ("hqq with 8 bits", "zero points that are no integers")),
        (("quant=nf4",), ("nf4 makes no integer codes", "right: such as quant=rtn")),
        (("quant.bits=4", "quant.input.bits=8"), ("inputs are quantized by torch alone",)),
        (("quant.bits=4", "sparsity=magnitude"), ("nothing of its own for what sparsity does",)),
        (("quant=nncf_int8_sym",), ("quant.method=nncf_int8_sym", "backend=openvino")),
        (("part=none", "generation.num_beams=3"), ("writes with one beam, not 3", "right: generation.num_beams=1")),
        (("part=none", "model.dtype=float16"), ("made of float32, not of float16", "model.stored=float16")),
    ],
)
def test_cells_that_it_cannot_run_are_one_line_when_planned(words: Sequence[str], said: Sequence[str]) -> None:
    with fails("backend=", *said):
        plan(*HERE, *words)


@pytest.mark.parametrize("method", ["ort_int8", "ort_int4"])
def test_its_own_methods_are_refused_elsewhere(method: str) -> None:
    with fails(f"quant.method={method}", "backend=onnxruntime"):
        plan(f"quant={method}")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A graph that adds a constant of 1000 numbers, which are in a file beside it."""
    path = tmp_path / "vision.onnx"
    shape = {"x": [1000], "y": [1000]}
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shape.items())
    constant = helper.make_tensor("c", TensorProto.FLOAT, [1000], bytes(4000), raw=True)
    graph = helper.make_graph([helper.make_node("Add", ["x", "c"], ["y"])], "g", [x], [y], [constant])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save_model(made, path, save_as_external_data=True, location="vision.onnx.data", size_threshold=0)
    return path


def test_a_whole_file_is_read(model: Path) -> None:
    assert OrtSession(compiled(model, "cpu", "all", 1)).outputs == ["y"]


@pytest.mark.parametrize("name", ["vision.onnx", "vision.onnx.data"])
def test_a_cut_file_is_one_line(model: Path, name: str) -> None:
    cut = model.with_name(name)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    with fails(str(model), "cannot run it", "right: a whole folder"):
        compiled(model, "cpu", "all", 1)


def test_a_file_of_a_later_version_is_one_line(model: Path) -> None:
    made = onnx.load(model)
    made.opset_import[0].version = 99
    onnx.save_model(made, model)
    with fails(str(model), f"onnxruntime {onnxruntime.__version__} cannot run it"):
        compiled(model, "cpu", "all", 1)


def test_a_provider_that_is_not_there_is_one_line(model: Path) -> None:
    with fails("backend.provider=cuda", "CPUExecutionProvider"):
        compiled(model, "cuda", "all", 1)


# ---- what is in its key


def test_its_version_and_all_options_are_in_the_key() -> None:
    version = onnxruntime.__version__
    plain = {"name": "onnxruntime", "version": version, "options": {"provider": "cpu", "level": "all"}}
    assert identity_of(choice()) == identity_of(choice(level="all")) == plain
    assert len({job("part=none").get("key"), job("part=none", "backend.level=basic").get("key")}) == 2


# ---- what it writes


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[OnnxRuntime, TorchBackend]:
    """onnxruntime and torch, which keep what they trace and load."""
    settings = Settings(backend=choice(), batch_size=16, threads=1, cache="off", device="cpu")
    return OnnxRuntime(settings), TorchBackend(settings)


CELLS = [
    ("part=none", "task=shapes_caption"),
    ("part=none", "task=shapes_vqa"),
    ("part=none", "task=shapes_caption", "model.stored=float16"),
    ("part=all", "quant.bits=4", "quant.strategy=group", "quant.group_size=32", "task=shapes_caption"),
    ("part=all", "quant.bits=8", "quant.symmetric=true", "task=shapes_vqa"),
    ("part=all", "quant=mse", "quant.bits=4", "quant.strategy=group", "quant.group_size=24", "task=shapes_caption"),
    ("part=llm", "quant=gptq", "quant.bits=4", "calibration.n_samples=4", "task=shapes_caption", "model.stored=float16"),
    ("part=llm", "quant=awq", "quant.bits=4", "calibration.n_samples=4", "task=shapes_caption"),
    ("part=llm", "quant=awq_prescale", "quant.bits=4", "quant.strategy=group", "quant.group_size=32",
     "calibration.n_samples=4", "task=shapes_caption"),
    ("part=all", "quant.bits=2", "quant.strategy=group", "quant.group_size=16", "per_part.vit.bits=8", "task=shapes_caption"),
    ("part=llm", "quant.bits=4", "drop_blocks=qformer:4-5+llm:3", "task=shapes_caption"),
]  # fmt: skip


@pytest.mark.thorough
@pytest.mark.parametrize("words", CELLS, ids=" ".join)
def test_texts_are_those_of_torch_and_files_as_long_as_the_table_says(
    both: tuple[OnnxRuntime, TorchBackend], words: Sequence[str]
) -> None:
    cell = job(*words)
    own, torchs = both[0](cell), both[1](cell)
    found, expected = own.predictions, torchs.predictions
    assert len(found.id) == 100
    assert found.text == expected.text
    assert found.nll_sum == pytest.approx(expected.nll_sum, rel=1e-4, abs=1e-4)
    payload, planned = own.cost["payload_bytes"], cell["columns"]["model_bytes"]
    assert payload == pytest.approx(planned, rel=0.01)
    assert own.layers_changed == torchs.layers_changed


@pytest.mark.thorough
@pytest.mark.parametrize(("method", "flips"), [("ort_int8", 0.4), ("ort_int4", 0.9)])
def test_its_own_methods_round_the_layers_of_the_recipe(
    both: tuple[OnnxRuntime, TorchBackend], method: str, flips: float
) -> None:
    cell = job("part=all", f"quant={method}", "task=shapes_caption")
    own, plain = both[0](cell), both[1](job("part=none", "task=shapes_caption"))
    assert own.cost["payload_bytes"] == pytest.approx(cell["columns"]["model_bytes"], rel=0.01)
    found, expected = own.predictions.text, plain.predictions.text
    assert found is not None
    assert expected is not None
    assert 0 < sum(a != b for a, b in zip(found, expected, strict=True)) < 100 * flips
    assert own.cost["batch_size"] == (1 if method == "ort_int8" else 16)  # whose inputs would change their neighbours


@pytest.mark.thorough
def test_it_is_timed_beside_its_baseline_and_torch(both: tuple[OnnxRuntime, TorchBackend]) -> None:
    cell = job("part=llm", "quant.bits=4", "task=shapes_caption", "task.limit=4")
    one, batch = both[0].measure(cell)
    assert (one["batch"], batch["batch"]) == (1, 4)
    for line in (one, batch):
        assert line["runs"] >= FEWEST
        assert min(line["ms_median"], line["baseline_ms_median"], line["torch_ms_median"]) > 0
