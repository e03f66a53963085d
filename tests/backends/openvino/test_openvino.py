"""Cells of the OpenVINO back end: torch's texts, the recipe's codes, sizes, the cache, and what it refuses."""

from __future__ import annotations

import os
import signal
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.backends.backend import Answered
from blip2sweep.backends.graphs.cells import SIZES
from blip2sweep.backends.graphs.files import unpack
from blip2sweep.backends.openvino import backend as own
from blip2sweep.backends.openvino.backend import EXACT, OpenVino
from blip2sweep.backends.torch import turns
from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.cache.disk import Store
from blip2sweep.errors import MissingExtra, UserError, UserErrors
from blip2sweep.machine.devices import cpu_name
from blip2sweep.recipe.compact import expand
from tests.composing import plan
from tests.conftest import place
from tests.in_process import jobs

# Blocks of every part are dropped, so that there is less to convert.
WORDS = (
    "backend=openvino", "task=shapes_caption", "drop_blocks=vit:1-4+qformer:1-3+llm:1-4", "part=all", "quant.strategy=group",
    "quant.group_size=32", "quant.symmetric=false", "quant.bits=4", "per_part.qformer.bits=3", "per_part.llm.bits=8",
    "per_part.llm.method=mse",
)  # fmt: skip


@pytest.fixture(scope="module")
def cell() -> dict[str, Any]:
    (job,) = (j for j in jobs(*WORDS, limit=24) if j["key"] != j["baseline"])
    return job


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def backend(folder: Path) -> OpenVino:
    return settings(folder)


def settings(folder: Path) -> OpenVino:
    own = {"name": "openvino", "options": {"hints": "exact"}}
    return OpenVino({"cache": "disk", "cache_dir": str(folder), "threads": 1, "backend": own})  # type: ignore[typeddict-item]


@pytest.fixture(scope="module")
def answered(backend: OpenVino, cell: dict[str, Any]) -> Answered:
    backend.expect([cell])
    return backend(cell)


@pytest.mark.thorough
def test_texts_and_likelihoods_are_those_of_torch(answered: Answered, cell: dict[str, Any]) -> None:
    expected = TorchBackend({"device": "cpu", "cache": "off", "threads": 1})(cell)
    found, own = answered.predictions, expected.predictions
    assert (found.id, found.text, found.tokens, found.nll_tokens) == (own.id, own.text, own.tokens, own.nll_tokens)
    assert found.nll_sum == pytest.approx(own.nll_sum, abs=1e-4)
    assert answered.layers_changed == expected.layers_changed
    assert f" openvino {version('openvino')} " in answered.provenance["versions"]


@pytest.mark.thorough
def test_the_files_hold_the_codes_and_are_as_large_as_the_table_says(
    answered: Answered, cell: dict[str, Any], backend: OpenVino, folder: Path, tmp_path: Path
) -> None:
    assert answered.cost["payload_bytes"] == pytest.approx(cell["columns"]["model_bytes"], rel=0.01)
    (entry,) = folder.glob("*.entry")
    unpack(Store(folder, 0).get(entry.stem) or b"", tmp_path)
    recipe = expand(cell["recipe"], backend.worker.torch.plain(cell).anatomy)
    found = {name: kind for xml in tmp_path.glob("*.xml") for name, kind in types(xml)}
    expected = {f"self.{path}.weight": f"u{s.weights.num_bits}" for path, s in recipe.schemes.items()}
    assert {found[name] for name in expected} == {"u3", "u4", "u8"}
    assert all(found[name] == kind for name, kind in expected.items())
    on_disk = sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file() and p.name != SIZES)
    assert answered.cost["export_bytes"] == on_disk
    assert answered.cost["payload_bytes"] == sum(p.stat().st_size for p in tmp_path.glob("*.bin"))


def types(xml: Path) -> list[tuple[str, str]]:
    """(name, type) of the constants of a graph."""
    layers = [x for x in ElementTree.parse(xml).getroot().iter("layer") if x.get("type") == "Const"]
    return [(str(x.get("name")), str(x[0].get("element_type"))) for x in layers]


@pytest.mark.thorough
def test_what_is_kept_is_not_made_again_and_a_cut_file_is(
    answered: Answered, cell: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = list[str]()
    real = TorchBackend.made
    monkeypatch.setattr(TorchBackend, "made", lambda self, job: made.append(job["key"]) or real(self, job))
    other = {**cell, "task": {**cell["task"], "nll_references": 0}}
    assert settings(folder)(other).predictions.text == answered.predictions.text
    assert made == []
    (entry,) = folder.glob("*.entry")
    entry.write_bytes(entry.read_bytes()[:-1000])
    assert settings(folder)(other).predictions.text == answered.predictions.text
    assert made == [cell["key"]]


@pytest.mark.thorough
def test_nothing_is_kept_of_a_cell_that_could_not_be_written(
    cell: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = lambda self, job: replace(TorchBackend.plainly(self, job), codes={})  # noqa: E731
    monkeypatch.setattr(TorchBackend, "plainly", TorchBackend.made, raising=False)
    monkeypatch.setattr(TorchBackend, "made", lacking)
    with pytest.raises(RuntimeError, match=r"codes of 0 layers for a recipe of \d+, such as "):
        settings(tmp_path)(cell)
    assert not list(tmp_path.iterdir())


# ---- planning


def test_the_identity_has_the_library_and_what_its_hints_stand_for() -> None:
    exact, default = (OpenVino.identity({"name": "openvino", "options": {"hints": h}}) for h in ("exact", "default"))
    assert exact == {
        "name": "openvino", "version": version("openvino"), "options": {"hints": "exact"}, "properties": dict(EXACT),
    }  # fmt: skip
    assert default["properties"] == {}
    assert OpenVino.identity({"name": "openvino"}) == exact


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("quant.bits=5",), r"no type of 5 bits \(\d+ layers, such as vision_model.*\); right: quant.bits of 1, 2, 3, 4, 6, 8"),
        (("quant=nf4",), r"nf4 makes no integer codes with scales .*; right: such as quant=rtn, mse, gptq or awq"),
        (("quant.strategy=group", "quant.group_size=48"), r"group_size=48 does not divide rows of 64 .*; right: a divisor"),
        (("quant.input.bits=8",), r"inputs are quantized by torch alone .*; right: without quant.input"),
        (("sparsity=magnitude", "quant.bits=none"), r"what sparsity makes of weights would be stored as any others"),
        (("generation.num_beams=3",), r"writes with one beam, not 3; right: generation.num_beams=1"),
        (("model.dtype=bfloat16",), r"graphs are made of float32, not of bfloat16; right: model.dtype=float32"),
        (("quant.bits=2", "backend.hints=default"), r"no kernel of 2 bits in bfloat16 .*hints=exact"),
        (("backend.hints=fast",), r"backend.hints=fast: .*known: default, exact"),
        (("backend.options.speed=1",), r"backend.options.speed: .*known: hints"),
    ],
)  # fmt: skip
def test_what_it_cannot_run_is_said_in_one_line(words: tuple[str, ...], told: str) -> None:
    with pytest.raises(UserError, match=told) as error:
        plan("backend=openvino", "part=all", "task.limit=2", *words)
    assert "\n" not in str(error.value)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(UserErrors) as error:
        plan("backend=openvino", "part=all", "quant.bits=5", "generation.num_beams=2", "task.limit=2")
    assert len(error.value.lines) == 2


def test_a_missing_library_is_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "installed", lambda _: False)
    with pytest.raises(MissingExtra, match=r"needs openvino, .* right: pip install 'blip2sweep\[openvino\]'"):
        OpenVino.identity({"name": "openvino"})


# ---- latency


@pytest.mark.thorough
def test_a_cell_is_timed_in_turns_with_its_baseline_and_torch(
    answered: Answered, cell: dict[str, Any], backend: OpenVino, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"BUDGET": -1.0, "SINGLES": 1, "BATCHES": 1}.items():
        monkeypatch.setattr(turns, name, value)
    alone, together = backend.measure(cell)
    assert (alone["batch"], together["batch"], alone["device"]) == (1, 24, cpu_name())
    numbers = {alone["ms_median"], alone["baseline_ms_median"], alone["torch_ms_median"]}
    assert len(numbers) == 3
    assert min(numbers) > 0


@pytest.mark.thorough
def test_sessions_that_end_in_any_order_leave_signals_alone(answered: Answered, folder: Path, tmp_path: Path) -> None:
    """Each plugin frees its own signal stack. Python's handlers run on the one of before."""
    from blip2sweep.backends.openvino.session import OpenVinoSession

    entry = min(folder.glob("*.entry"))
    unpack(Store(folder, 0).get(entry.stem) or b"", tmp_path)
    xml, before, came = min(tmp_path.glob("*.xml")), place(), []
    first, second = OpenVinoSession(xml, EXACT), OpenVinoSession(xml, EXACT)
    assert place() == before
    del first
    assert place() == before
    del second
    assert place() == before
    handler = signal.signal(signal.SIGUSR1, lambda *_: came.append(True))
    os.kill(os.getpid(), signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, handler)
    assert came == [True]
