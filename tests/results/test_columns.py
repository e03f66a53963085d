"""The data dictionary: what a table on disk has, whatever was run, and the columns that follow from others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blip2sweep.metrics import METRICS, kept
from blip2sweep.results.collect import collect
from blip2sweep.results.columns import COLUMNS, NUMBER
from blip2sweep.results.latest import read_table, up_to_date
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.schema import ARROW, FIXED, column_of, every_column, ordered
from blip2sweep.results.scored import Scored
from blip2sweep.results.sweeps import find_sweep
from scripts.columns_page import PAGE, page
from tests.golden.freeze import FILE
from tests.synthetic import build, entry, whole

RECIPES = [whole(["vit"], 4), [entry("vit:all:all", 4), entry("llm:all:all", 4)], [entry("vit:all:all", 4), entry("llm:all:all", 2)],
           [entry("llm:all:all", 3, strategy="group", group_size=32)]]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("columns")
    build(path, RECIPES, n=60)
    return path


def test_the_page_is_made_from_the_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever metrics a package from outside has added in this process."""
    monkeypatch.setitem(METRICS, "of_a_package", replace(METRICS["cider"], name="of_a_package"))
    assert PAGE.read_text(encoding="utf-8") == page(), "right: python scripts/columns_page.py"


def test_no_column_is_described_twice() -> None:
    names = [c.name for c in COLUMNS]
    assert len(names) == len(set(names))
    assert all(c.meaning and c.null and c.dtype in ARROW for c in COLUMNS)


def test_every_column_of_a_real_sweep_is_in_the_dictionary_with_its_type() -> None:
    disk = json.loads(FILE.read_text())["disk"]
    assert [c for c in disk["table"] if column_of(c) is None] == []
    floats = [n for n, kind in (line.split() for line in disk["table_types"]) if kind == "float64"]
    assert {column_of(n).dtype for n in floats if n.startswith(("drop_", "baseline_"))} == {NUMBER}  # type: ignore[union-attr]


@pytest.mark.parametrize(("name", "described"), [
    ("cider", "<metric>"), ("drop_cider", "drop_<metric>"), ("drop_cider_low", "drop_<metric>_low"), ("torch_nll", "torch_<metric>"),
    ("drop_control_cider_high", "drop_control_<metric>_high"), ("bits_llm", "bits_<part>"), ("bits_vision", "bits_vision"),
    ("bits_per_weight", "bits_per_weight"), ("noise_seed_cider", "noise_<metric>"), ("noise_seed_flip_rate", "noise_seed_flip_rate"),
    ("latency_ms_median_batch", "latency_<measure>_batch"), ("mine", None), ("hits_weights", "hits_<stage>"),
])  # fmt: skip
def test_a_column_is_described_by_its_pattern(name: str, described: str | None) -> None:
    found = column_of(name)
    assert (found.name if found else None) == described


def test_a_table_on_disk_has_every_fixed_column_in_order_and_type(folder: Path) -> None:
    for path in (folder / "table.parquet", folder / "sweeps/planted/table.parquet"):
        schema = pq.read_schema(path)
        assert schema.names == ordered(schema.names)
        assert FIXED.keys() <= set(schema.names)
        wrong = {n for n in FIXED if schema.field(n).type != ARROW[FIXED[n].dtype]}
        assert wrong == set()
    table = pd.read_parquet(folder / "table.parquet")
    assert table["latency_ms_median"].isna().all()
    assert table["group_size"].dropna().tolist() == [32]
    assert "latency_ms_median" not in read_table(folder / "table.parquet")
    assert list(every_column(read_table(folder / "table.parquet"))) == list(table)


def test_a_mixed_column_has_texts(tmp_path: Path) -> None:
    sizes = [entry("vit:all:all", 4, strategy="group", group_size=n) for n in (32,)]
    other = entry("llm:all:all", 4, strategy="group", group_size=64)
    build(tmp_path, [sizes, [*sizes, other]], n=30)
    assert pq.read_schema(tmp_path / "table.parquet").field("group_size").type in (pa.string(), pa.large_string())
    assert pd.read_parquet(tmp_path / "table.parquet")["group_size"].dropna().tolist() == ["32", "mixed"]


# ---- columns that follow from others


def test_bits_and_setting_say_what_all_parts_have(folder: Path) -> None:
    table = pd.read_parquet(folder / "table.parquet")
    assert table["bits"].fillna(0).tolist() == [0, 4, 4, 0, 3]
    assert table["setting"].tolist() == ["none", *["rtn/channel"] * 3, "rtn/group32"]


def test_what_is_retained_is_the_ratio_with_its_interval(folder: Path) -> None:
    table = pd.read_parquet(folder / "table.parquet").set_index("key", drop=False)
    assert table["retained_cider"].tolist() == pytest.approx((100 * table["cider"] / table["baseline_cider"]).tolist())
    names = {p.stem.partition("-")[0]: p.stem for p in (folder / "predictions").glob("*.json")}
    base = Scored(folder, names[table["baseline"].iloc[0]])
    for key, row in table.iloc[1:].iterrows():
        cell, metric = Scored(folder, names[str(key)]), METRICS["cider"]
        found = kept(metric, base.by_image(metric), cell.by_image(metric))
        assert [row["retained_cider_low"], row["retained_cider_high"]] == pytest.approx(
            [100 * found.low, 100 * found.high]
        )
    assert table.iloc[0][["retained_cider", "retained_cider_low", "retained_cider_high"]].tolist() == [100] * 3


def test_a_cell_names_all_sweeps_that_asked_for_it(tmp_path: Path) -> None:
    build(tmp_path, RECIPES[:1], n=30)
    sweep = find_sweep(tmp_path, "planted")
    sweep.name, sweep.created = "again", sweep.created + 1
    sweep.write(tmp_path)  # a sweep whose cells are done writes no journal
    table, _ = up_to_date(tmp_path, None)
    assert [list(s) for s in table["sweeps"]] == [["planted", "again"]] * 2


def test_a_line_of_an_earlier_version_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from blip2sweep.results import drops

    def old(*given: object) -> object:
        return {k: v for k, v in real(*given).items() if k != "retained"}  # type: ignore[arg-type]

    real = drops.measure
    monkeypatch.setattr("blip2sweep.results.collector.measure", old)
    build(tmp_path, RECIPES[:1], n=30)
    before = pd.read_parquet(tmp_path / "table.parquet")
    assert "retained_cider_low" not in before
    assert before["retained_cider"].notna().all()
    monkeypatch.undo()
    after = collect(tmp_path)
    assert after["retained_cider_low"].notna().all()
    lines = Ledger(tmp_path, measured=True).refresh().attempts
    assert [m["generation"] for a in lines.values() for m in a.measured.values()] == [1, 1]
    size = {p: p.stat().st_size for p in (tmp_path / "journals").iterdir()}
    collect(tmp_path)
    assert {p: p.stat().st_size for p in (tmp_path / "journals").iterdir()} == size
