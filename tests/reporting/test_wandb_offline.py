"""W&B's offline runs: where they and all that belongs to them lie, what they hold, and what `wandb sync` makes of them."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
import pytest

from blip2sweep.reporting.wandb_places import kept_below, mode_of
from tests.command_line import Ran, blip2sweep
from tests.reporting.wandb_server import wandb_server

pytestmark = pytest.mark.thorough

pytest.importorskip("wandb")


def records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file: LevelDB's log format (blocks of 32 KiB, pieces with crc, length, type) of protobufs."""
    from wandb.proto import wandb_internal_pb2 as pb

    data, at, whole = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768  # a block's tail too short for a header is padding
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            record = pb.Record()
            record.ParseFromString(whole)
            yield record
        if kind in (0, 1, 4):
            whole = b""


def runs(folder: Path) -> dict[str, dict[str, Any]]:
    """{run id: {group, config, summary, artifacts}} of every offline run below a folder."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.rglob("*.wandb")):
        told: dict[str, Any] = {"config": {}, "summary": {}, "artifacts": [], "staged": []}
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                told |= {"id": record.run.run_id, "group": record.run.run_group, "project": record.run.project}
                told["config"] |= {c.key: json.loads(c.value_json) for c in record.run.config.update}
            elif kind == "summary":
                told["summary"] |= {u.key: json.loads(u.value_json) for u in record.summary.update}
            elif kind == "artifact":
                told["artifacts"].append(record.artifact.name)
                told["staged"] += [e.local_path for e in record.artifact.manifest.contents]
        found[told["id"]] = told
    return found


WORDS = (
    "-m",
    "task.limit=12",
    "part=vit",
    "quant.bits=2,8",
    "tracking=wandb",
    "tracking.mode=offline",
    "sweep_name=tracked",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def env(home: Path) -> dict[str, str]:
    """A home of its own; fonts are known already."""
    folders = {"XDG_DATA_HOME": ".local/share", "XDG_CACHE_HOME": ".cache", "XDG_CONFIG_HOME": ".config"}
    places = {name: str(home / folder) for name, folder in folders.items()}
    return {"HOME": str(home), **places, "MPLCONFIGDIR": matplotlib.get_cachedir()}


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory, env: dict[str, str]) -> tuple[Path, Ran]:
    """The folder and the words of a sweep with offline runs."""
    folder = tmp_path_factory.mktemp("tracked")
    ran = blip2sweep(*WORDS, cwd=folder, env=env)
    assert ran.code == 0, ran.err
    return folder, ran


def test_nothing_is_staged_at_home_and_where_runs_lie_is_said(tracked: tuple[Path, Ran], home: Path) -> None:
    folder, ran = tracked
    where = folder / "outputs" / "wandb"
    assert f"W&B's offline runs are in {where}; where there is a network: wandb sync {where}/offline-run-*" in ran.err
    assert not [p for p in home.rglob("*") if "wandb" in str(p.relative_to(home))]
    staged = [Path(path) for run in runs(where).values() for path in run["staged"]]
    assert len(staged) == 3  # table, page, table of samples
    assert all(path.is_relative_to(where) and path.stat().st_size > 0 for path in staged)


def test_a_sync_brings_runs_table_and_page(tracked: tuple[Path, Ran], tmp_path: Path) -> None:
    folder, _ = tracked
    shutil.copytree(folder / "outputs" / "wandb", tmp_path / "wandb")  # a sync marks what it has sent
    found = sorted(map(str, (tmp_path / "wandb").glob("offline-run-*")))
    with wandb_server() as server:
        told = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "a" * 40, "HOME": str(tmp_path)}
        given = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "XDG_"))}
        command = [sys.executable, "-m", "wandb", "sync", *found]
        subprocess.run(command, check=True, capture_output=True, env={**given, **told}, timeout=120)
    rows = pd.read_parquet(folder / "outputs" / "table.parquet").set_index("key")
    assert set(server.runs) == {*rows.index, "sweep-tracked"}
    for key, row in rows.iterrows():
        assert server.summary[str(key)]["cider"] == pytest.approx(row["cider"])
        assert server.runs[str(key)]["recipe"]["value"] == row["recipe"]
    sweep = folder / "outputs" / "sweeps" / "tracked"
    table = pd.read_parquet(io.BytesIO(server.artifacts["sweep-tracked"]["table.parquet"]))
    pd.testing.assert_frame_equal(table, pd.read_parquet(sweep / "table.parquet"))
    assert server.artifacts["report-tracked"]["report.html"] == (sweep / "report.html").read_bytes()
    assert any("worst_drops" in name for name in server.artifacts)
    assert any("worst_drops" in line for line in server.history["sweep-tracked"])


def test_offline_runs_hold_what_the_table_holds(tracked: tuple[Path, Ran], tmp_path: Path, env: dict[str, str]) -> None:
    shutil.copytree(tracked[0], tmp_path, dirs_exist_ok=True, copy_function=shutil.copy2)
    rows = pd.read_parquet(tmp_path / "outputs" / "table.parquet").set_index("key")
    found = runs(tmp_path / "outputs")
    assert set(found) == {*rows.index, "sweep-tracked"}
    for key, row in rows.iterrows():
        run = found[str(key)]
        assert (run["group"], run["project"]) == ("tracked", "blip2sweep")
        assert run["summary"]["cider"] == pytest.approx(row["cider"])
        assert run["summary"]["drop_cider_high"] == pytest.approx(row["drop_cider_high"])
        assert run["config"]["recipe"] == row["recipe"]
        assert run["config"]["part"] == row["part"]
    assert {"sweep-tracked", "report-tracked"} <= set(found["sweep-tracked"]["artifacts"])
    assert any("worst_drops" in name for name in found["sweep-tracked"]["artifacts"])
    cell = next(found[str(k)] for k, row in rows.iterrows() if row["bits_vit"] == 2)
    base = next(found[str(k)] for k, row in rows.iterrows() if row["part"] == "none")
    # Parallel coordinates need a number where a part is left alone.
    assert (cell["config"]["width_vit"], base["config"]["width_vit"]) == (2, 16)
    assert cell["summary"]["retained"] == pytest.approx(100 * cell["summary"]["metric"] / rows["cider"].iloc[0])
    again = blip2sweep(*WORDS, cwd=tmp_path, env=env)
    assert "nothing to run" in again.err
    assert set(runs(tmp_path / "outputs")) == set(found)  # the same ids: sending twice changes nothing


def test_places_that_the_user_named_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DATA_DIR", "/mine")
    monkeypatch.delenv("WANDB_CACHE_DIR", raising=False)
    with kept_below(tmp_path):
        assert os.environ["WANDB_DATA_DIR"] == "/mine"
        assert os.environ["WANDB_CACHE_DIR"] == str(tmp_path / "wandb" / "cache")
    assert os.environ["WANDB_DATA_DIR"] == "/mine"
    assert "WANDB_CACHE_DIR" not in os.environ


@pytest.mark.parametrize(("variable", "mode"), [(None, "online"), ("offline", "offline"), ("online", "online")])
def test_the_mode_of_the_environment_counts(variable: str | None, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    if variable:
        monkeypatch.setenv("WANDB_MODE", variable)
    assert mode_of({"mode": "online"}) == mode
