"""Rows of several back ends are told apart, each has drops of its own, and what to ship is of each."""

from __future__ import annotations

import re
from dataclasses import replace

import pandas as pd
import pytest

from blip2sweep.commands import recommend
from blip2sweep.reporting.back_ends import back_end_names, origins
from blip2sweep.reporting.comparison import compare
from blip2sweep.reporting.figures import figures
from blip2sweep.reporting.models_page import models_page
from blip2sweep.reporting.rerun import context
from blip2sweep.reporting.ship import ship_table, shipped
from blip2sweep.reporting.short_table import short_table
from blip2sweep.reporting.source import Selection
from blip2sweep.reporting.sources import BACK_END, Sources
from tests.synthetic import build, whole

EXACT, DEFAULT = 'openvino {"hints":"exact"}', 'openvino {"hints":"default"}'


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Selection:
    """The rows of a sweep twice, the second time as OpenVINO's, with files and times."""
    folder = tmp_path_factory.mktemp("back-ends")
    build(folder, [whole(("vit", "qformer", "llm"), b) for b in (2, 3, 4, 8)], n=60)
    torch = pd.read_parquet(folder / "table.parquet").drop(columns="imported").assign(backend="torch")
    torch["compression_ratio"] = 16 / torch["bits_per_weight"]
    there = torch.assign(
        backend=EXACT, payload_bytes=torch["model_bytes"] + 10, export_bytes=torch["model_bytes"] + 1000,
        latency_ms_median=torch["bits_per_weight"], latency_ratio=0.5, latency_device="a CPU",
    )  # fmt: skip
    return Selection(folder, None, pd.concat([torch, there], ignore_index=True), [], {})


def both(chosen: Selection) -> Sources:
    return Sources(chosen, [chosen.of_back_end(name) for name in ("torch", "openvino")], {}, BACK_END)


def test_names_have_options_only_where_these_differ() -> None:
    table = pd.DataFrame({"backend": ["torch", EXACT, DEFAULT, 'onnxruntime {"provider":"cpu"}', None]})
    assert back_end_names(table) == [
        "torch", "openvino hints=exact", "openvino hints=default", "onnxruntime", "unknown"
    ]  # fmt: skip
    assert back_end_names(table.iloc[:2]) == ["torch", "openvino"]


def test_rows_say_where_they_came_from() -> None:
    table = pd.DataFrame({"imported": [None, "predictions", None], "checkpoint": [None, None, "gptq 4 bits"]})
    assert origins(table) == ["", "imported", "checkpoint"]


def test_the_table_names_what_differs(chosen: Selection) -> None:
    short = short_table(chosen.table)
    assert set(short["backend"]) == {"torch", "openvino"}
    alone = short_table(chosen.table[chosen.table["backend"] == "torch"])
    assert not {"backend", "from"} & {*alone}
    marked = chosen.table.assign(imported=pd.Series([None] * (len(chosen.table) - 1) + ["predictions"]))
    assert list(short_table(marked)["from"])[-2:] == ["", "imported"]


def test_a_report_of_several_has_drops_of_each(chosen: Selection) -> None:
    data = compare(both(chosen)).figure.data
    assert set(data["model"]) == {"torch", "openvino"}
    one = chosen.source()
    assert one.cells["backend"].nunique() == 1
    assert re.fullmatch(r"left out, .*: \d+ cells of backend (openvino|torch) \(--only backend=\1\)", one.notes[-1])


def test_what_to_ship_is_within_the_noise_and_of_each_back_end(chosen: Selection) -> None:
    sources = both(chosen)
    for source in sources.models:
        found = shipped(source)
        assert found
        assert all(one.low <= 0 for one in found)
        assert [one.ratio for one in found] == sorted((one.ratio for one in found), reverse=True)
    text = re.sub("<[^>]+>", " ", ship_table(sources.models))
    assert "torch" in text
    assert "openvino" in text
    assert "on a CPU, × 0.50 of its baseline" in text
    assert "not timed" in text


@pytest.mark.thorough
def test_the_page_has_bytes_on_disk_and_times_of_each_device(chosen: Selection) -> None:
    sources = both(chosen)
    made = [figures(s) for s in sources.models]
    frontiers = [next(f.data for f in own if f.name == "frontier") for own in made]
    assert "export_bytes" not in set(frontiers[0]["by"])
    assert {"export_bytes", "latency_ms_median"} <= set(frontiers[1]["by"])
    page = models_page(sources, compare(sources), made)
    assert "Back ends by role" in page
    assert page.count("What to ship") == 3  # of all, and of each
    assert 'aria-label="Back end"' in page


def test_times_are_compared_on_their_own_device(chosen: Selection) -> None:
    table = chosen.table.copy()
    there = table["backend"] == EXACT
    table.loc[there, "latency_device"] = ["a CPU", "a CPU", "a CPU", "another", "another"]
    source = Selection(chosen.output_dir, None, table, [], {}).of_back_end("openvino")
    found = next(f.data for f in figures(source) if f.name == "frontier")
    timed = found[found["by"] == "latency_ms_median"]
    assert {s.rpartition(" on ")[2] for s in timed["setting"]} == {"a CPU", "another"}


@pytest.mark.parametrize(
    ("form", "backend"), [("openvino", "openvino"), ("onnx", "torch"), ("compressed-tensors", "torch")]
)
def test_a_format_chooses_among_the_cells_of_its_back_end(
    chosen: Selection, monkeypatch: pytest.MonkeyPatch, form: str, backend: str
) -> None:
    monkeypatch.setattr(recommend, "select", lambda *_: chosen)
    source = recommend.source_for(chosen.output_dir, None, False, {}, form)
    assert {b.partition(" ")[0] for b in source.cells["backend"]} == {backend}


def test_imported_rows_are_not_shipped(chosen: Selection) -> None:
    marked = chosen.table.assign(imported="predictions")
    source = Selection(chosen.output_dir, None, marked, [], {}).of_back_end("openvino")
    assert shipped(source) == []
    assert ship_table([source]) == ""  # nor is it said that none of them is good enough


def test_a_command_that_carries_on_has_the_back_end_of_its_rows(chosen: Selection) -> None:
    own = chosen.of_back_end("openvino")
    source = replace(own, command="-m task.limit=60 backend=torch,openvino quant.bits=3,4")
    row = source.cells[source.cells["part"] == "none"].iloc[0].to_dict()
    assert "backend=openvino" in context(source, [], row)
