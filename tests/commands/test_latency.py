"""`analysis.latency=true` as it is typed: planned, followed, told, retried, and never computed for its own sake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from blip2sweep.results.ledger import Ledger
from tests.command_line import Ran, blip2sweep

pytestmark = pytest.mark.thorough

CELLS = ("backend=dummy", "task=shapes_vqa", "task.limit=4", "part=vit", "drop_blocks=none,vit:1", "quant.bits=none,4")
SIMULATED = "not timed: 2 (quantization is simulated without quant.packed)"
LATENCY = ("latency_ms_median", "latency_ms_p90", "latency_ms_baseline", "latency_ratio")


def sweep(folder: Path, *words: str, name: str = "s", **behaviour: Any) -> Ran:
    env = {"BLIP2SWEEP_DUMMY": json.dumps(behaviour)}
    return blip2sweep("-m", *CELLS, f"sweep_name={name}", *words, cwd=folder, env=env)


def table(folder: Path, name: str = "s") -> pd.DataFrame:
    return pd.read_parquet(folder / "outputs" / "sweeps" / name / "table.parquet")


def started(folder: Path) -> int:
    return sum(a.started for a in Ledger(folder / "outputs").refresh().attempts.values())


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    """A sweep without latency, and then the same with it."""
    folder = tmp_path_factory.mktemp("swept")
    assert sweep(folder, name="plain").code == 0
    return folder, sweep(folder, "analysis.latency=true")


def test_a_done_sweep_is_timed_and_its_table_says_where(swept: tuple[Path, Ran]) -> None:
    folder, ran = swept
    assert ran.code == 0, ran.err
    assert "4 already done, 0 to run, 2 to time" in ran.err
    assert f"latency: 2 cells to time; {SIMULATED}" in ran.err
    assert "ms: median of one image alone on" in ran.out
    assert "other cells simulate their kernels, or were not timed" in ran.out
    assert started(folder) == 4  # nothing was computed again
    rows = table(folder)
    for column in [*LATENCY, *(f"{c}_batch" for c in LATENCY)]:
        assert rows[column].notna().tolist() == rows["recipe"].isin(["none", "vit:1=dropped"]).tolist(), column
    assert rows.loc[rows["part"] == "none", "latency_ratio"].min() == 1
    plain = table(folder, "plain")
    own = [
        "sweeps",
        *(c for c in rows if c.startswith("latency")),
    ]  # the first sweep's table was made before the second
    pd.testing.assert_frame_equal(rows.drop(columns=own), plain.drop(columns=own, errors="ignore"))
    assert plain[[*LATENCY]].isna().all(axis=None)


def test_the_same_command_again_has_nothing_to_time(swept: tuple[Path, Ran]) -> None:
    folder, _ = swept
    journals = sorted((folder / "outputs" / "journals").iterdir())
    ran = sweep(folder, "analysis.latency=true")
    assert f"latency: 0 cells to time, 2 timed already; {SIMULATED}" in ran.err
    assert "nothing to run: every cell is in the ledger" in ran.err
    assert sorted((folder / "outputs" / "journals").iterdir()) == journals
    planned = blip2sweep("plan", "-m", *CELLS, "analysis.latency=true", cwd=folder)
    assert f"latency: 0 cells to time, 2 timed already; {SIMULATED}" in planned.out


def test_what_could_not_be_timed_is_told_and_retry_times_it(tmp_path: Path) -> None:
    ran = sweep(tmp_path, "analysis.latency=true", untimed=["vit:1=dropped"])
    assert ran.code == 0, ran.err  # every cell has its result
    told = "1 cell is done and not timed, the first is"
    assert f"warning: {told}" in ran.err
    assert "(told not to time vit:1=dropped); right: `blip2sweep retry s` times them" in ran.err
    assert told in blip2sweep("status", cwd=tmp_path).out
    again = blip2sweep("retry", cwd=tmp_path)
    assert again.code == 0, again.err
    assert "sweep s: timing 1 cells that are done and not timed" in again.err
    assert table(tmp_path)["latency_ms_median"].notna().sum() == 2
    assert started(tmp_path) == 4
    assert told not in blip2sweep("status", cwd=tmp_path).out
    assert "nothing to run again" in blip2sweep("retry", cwd=tmp_path).err


def test_a_process_that_dies_while_it_times_costs_no_cell(tmp_path: Path) -> None:
    ran = sweep(tmp_path, "analysis.latency=true", dies_timed=["vit:1=dropped"])
    assert ran.code == 0, ran.err
    assert "(the process ended while it timed the cell)" in ran.err
    rows = table(tmp_path).set_index("recipe")
    assert rows["status"].tolist() == ["done"] * 4
    assert rows["latency_ms_median"].notna().sum() == 1


def test_launchers_of_others_time_too(tmp_path: Path) -> None:
    """Each cell in a process of its own, simulated ones too, which are then just computed."""
    ran = sweep(tmp_path, "analysis.latency=true", "hydra/launcher=basic")
    assert ran.code == 0, ran.err
    assert table(tmp_path)["latency_ms_median"].notna().sum() == 2
