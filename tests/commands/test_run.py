"""Sweeps from the command line to the table, on the embedded model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from blip2sweep.backends.torch import provenance
from blip2sweep.cache import disk as cache
from blip2sweep.compression.quantize import METHODS
from blip2sweep.compression.step import STEPS
from blip2sweep.recipe.semantics import semantics
from blip2sweep.results.collect import collect
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.predictions import read_predictions, stem
from tests.checkpoints import believe, tiny_config
from tests.command_line import Ran, blip2sweep
from tests.composing import plan
from tests.synthetic import build, build_planned, whole
from tests.waiting import ending, gone, wait_until

pytestmark = pytest.mark.thorough

SMALL = ["task.limit=24", "part=vit,llm", "quant.bits=2,8"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    """A small sweep, run once for the tests that look at it."""
    folder = tmp_path_factory.mktemp("swept")
    return folder, blip2sweep("-m", *SMALL, "sweep_name=small", cwd=folder)


def table(folder: Path, name: str = "small") -> pd.DataFrame:
    return pd.read_parquet(folder / "outputs" / "sweeps" / name / "table.parquet")


def test_it_ends_with_a_table_and_a_picture(swept: tuple[Path, Ran]) -> None:
    folder, ran = swept
    assert ran.code == 0, ran.err
    assert "5 cells (1 baseline), 5 to run" in ran.err
    for word in ("part", "bits", "cider", "drop", "95 % interval", "bits/weight", "embedded default"):
        assert word in ran.out
    outputs = folder / "outputs"
    for name in ("table.parquet", "samples.parquet", "sweeps/small/sweep.json", "sweeps/small/dropoff.png"):
        assert (outputs / name).stat().st_size > 0, name
    assert (outputs / "sweeps/small/dropoff.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_row_of_a_cell(swept: tuple[Path, Ran]) -> None:
    rows = table(swept[0]).set_index("part")
    cell = rows[rows["bits_vit"] == 2].iloc[0]
    base = rows.loc["none"]
    assert cell["baseline_cider"] == base["cider"]
    assert cell["drop_cider"] == pytest.approx(base["cider"] - cell["cider"])
    assert cell["drop_cider_low"] <= cell["drop_cider"] <= cell["drop_cider_high"]
    assert cell["drop_nll"] == pytest.approx(cell["nll"] - base["nll"])  # positive is worse
    assert cell["layers_touched"] == cell["layers_changed"] == 24
    assert (cell["recipe"], cell["method"], cell["strategy"]) == ("vit:all:all=rtn2/channel", "rtn", "channel")
    assert base["drop_cider"] == 0
    assert base["same_as_baseline"] == 1
    for column in (
        "versions",
        "host",
        "finished",
        "seconds",
        "seconds_vision",
        "batch_size",
        "device",
        "data",
        "weights",
    ):
        assert pd.notna(cell[column]), column


def test_the_samples(swept: tuple[Path, Ran]) -> None:
    samples = pd.read_parquet(swept[0] / "outputs" / "samples.parquet")
    assert len(samples) == 5 * 24
    assert {"key", "id", "image_id", "text", "tokens", "nll_sum", "cider", "meteor", "rouge_l"} <= set(samples)
    per_cell = samples.groupby("key")["cider"].mean()
    rows = table(swept[0]).set_index("key")
    assert np.allclose(per_cell, rows.loc[per_cell.index, "cider"])


def test_a_second_run_evaluates_nothing_and_says_so(swept: tuple[Path, Ran]) -> None:
    folder = swept[0]
    before = sorted((folder / "outputs" / "journals").iterdir())
    again = blip2sweep("-m", *SMALL, "sweep_name=again", cwd=folder)
    assert again.code == 0
    assert "5 already done, 0 to run" in again.err
    assert "nothing to run" in again.err
    assert sorted((folder / "outputs" / "journals").iterdir()) == before
    own = ["attempts", "sweeps"]
    assert table(folder, "again").drop(columns=own).equals(table(folder).drop(columns=own))


def test_rerun_computes_one_cell_again(swept: tuple[Path, Ran]) -> None:
    folder = swept[0]
    key = table(folder)["key"].iloc[-1]
    ran = blip2sweep("-m", *SMALL, "--rerun", key[:8], "sweep_name=rerun", cwd=folder)
    assert ran.code == 0, ran.err
    assert "1 to run" in ran.err
    rows = table(folder, "rerun").set_index("key")
    assert rows.loc[key, "attempts"] == 2
    first = table(folder).set_index("key")
    assert rows.loc[key, "cider"] == first.loc[key, "cider"]
    assert rows.loc[key, "predictions"] == first.loc[key, "predictions"]


def test_a_sweep_without_a_table_yet_gets_one(swept: tuple[Path, Ran]) -> None:
    """It runs, or was stopped: its cells that are done are in the ledger."""
    (swept[0] / "outputs/sweeps/small/table.parquet").unlink()
    ran = blip2sweep("table", "small", cwd=swept[0])
    assert ran.code == 0, ran.err
    assert ran.out.count("vit") >= 2


@pytest.mark.parametrize("fmt", ["rich", "csv", "md", "latex"])
def test_the_table_verb(swept: tuple[Path, Ran], fmt: str) -> None:
    ran = blip2sweep("table", "small", "--format", fmt, cwd=swept[0])
    assert ran.code == 0
    assert ran.out.count("vit") >= 2
    assert {"rich": "┃", "csv": "drop_cider_low", "md": "| --- |", "latex": r"\toprule"}[fmt] in ran.out


def test_status_and_unknown_sweeps(swept: tuple[Path, Ran]) -> None:
    assert "5 cells: 5 done" in blip2sweep("status", "small", cwd=swept[0]).out
    wrong = blip2sweep("table", "smal", cwd=swept[0])
    assert wrong.code == 2
    assert "did you mean 'small'" in wrong.err


def test_rescore_without_inference(swept: tuple[Path, Ran]) -> None:
    outputs = swept[0] / "outputs"
    name = next((outputs / "scores").glob("*.npz"))
    before = pd.read_parquet(outputs / "table.parquet")
    name.write_bytes(name.read_bytes()[:100])  # a cut file counts as not there
    ran = blip2sweep("rescore", cwd=swept[0])
    assert ran.out.startswith("scored 1 of ")
    after = pd.read_parquet(outputs / "table.parquet")
    assert after["cider"].tolist() == before["cider"].tolist()
    assert blip2sweep("rescore", cwd=swept[0]).out.startswith("scored 0 of ")


def test_rows_of_older_semantics_are_marked_and_not_mixed(swept: tuple[Path, Ran], tmp_path: Path) -> None:
    subprocess.run(["cp", "-r", str(swept[0] / "outputs"), str(tmp_path)], check=True)
    for path in (tmp_path / "outputs" / "journals").iterdir():
        lines = [json.loads(x) for x in path.read_text().splitlines()]
        for line in lines:
            if line["event"] == "result" and line["columns"].get("bits_vit") == 2:
                line["columns"]["semantics"] = 0
        path.write_text("".join(json.dumps(x) + "\n" for x in lines))
    blip2sweep("rescore", cwd=tmp_path)
    assert pd.read_parquet(tmp_path / "outputs" / "table.parquet")["stale"].sum() == 1
    told = "1 row was computed by an earlier version (semantics 0, now"
    shown = blip2sweep("table", "--all", cwd=tmp_path)
    assert told in shown.out
    assert told in blip2sweep("table", "--all", "--format", "csv", cwd=tmp_path).err
    assert told in blip2sweep("plan", "part=llm", cwd=tmp_path).out
    assert told in blip2sweep("status", cwd=tmp_path).out
    assert "the same command computes them again" in shown.out


def test_a_change_of_one_method_concerns_its_cells_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["quant=rtn,gptq", "part=vit", "task.limit=4"]
    made, code = plan(*words), provenance.computed_by()
    build_planned(tmp_path, made.cells.values(), lambda job: 0.2)
    assert not collect(tmp_path)["stale"].any()
    monkeypatch.setitem(METHODS, "gptq", replace(METHODS["gptq"], semantics=semantics(METHODS, STEPS, METHODS) + 1))
    again, table = plan(*words), collect(tmp_path)
    assert set(made.cells) - set(again.cells) == {made.keys[1]}  # not round to nearest's, nor the baseline's
    assert table.loc[table["stale"], "key"].tolist() == [made.keys[1]]
    assert provenance.computed_by() != code  # what it left in the store is of before


def test_what_was_imported_is_not_of_our_arithmetic(tmp_path: Path) -> None:
    build(tmp_path, [whole(["vit"], 4, method) for method in ("rtn", "gptq")])
    table = pd.read_parquet(tmp_path / "table.parquet")
    assert set(table["method"].dropna()) == {"rtn", "gptq"}
    assert not table["stale"].any()


def test_vqa_with_two_workers(tmp_path: Path) -> None:
    words = ["-m", "task=shapes_vqa", "task.limit=30", "part=llm", "quant.bits=2,8", "hydra.launcher.workers=2"]
    ran = blip2sweep(*words, "sweep_name=vqa", cwd=tmp_path)
    assert ran.code == 0, ran.err
    rows = table(tmp_path, "vqa")
    assert len(rows) == 3
    for column in ("vqa_accuracy", "vqa_accuracy_yes_no", "vqa_accuracy_number", "vqa_accuracy_other", "nll"):
        assert rows[column].notna().all()
    assert rows["vqa_accuracy"].iloc[0] > rows["vqa_accuracy"].iloc[1]
    events = [json.loads(x) for p in (tmp_path / "outputs" / "journals").iterdir() for x in p.read_text().splitlines()]
    assert len({e["pid"] for e in events if e["event"] == "result"}) == 2


def test_half_precision_has_a_noise_floor(tmp_path: Path) -> None:
    ran = blip2sweep("task.limit=12", "model.dtype=bfloat16", "quant.bits=8", cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert "noise floor: the baseline at another batch size changes" in ran.out
    rows = pd.read_parquet(tmp_path / "outputs" / "table.parquet")
    assert rows["noise_flip_rate"].between(0, 1).all()
    assert rows["noise_cider"].notna().all()


# ---- failures


def test_a_failed_cell_is_a_row_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two models is not what planning took it for: a worker finds it."""
    monkeypatch.setenv(cache.USER, str(tmp_path / "user"))
    model = tmp_path / "model"
    subprocess.run(["cp", "-r", str(Path(__file__).parents[2] / "blip2sweep/assets/tiny"), str(model)], check=True)
    config = json.loads((model / "config.json").read_text())
    config["vision_config"]["num_attention_heads"] = 3
    (model / "config.json").write_text(json.dumps(config))
    believe(model, tiny_config())
    words = ["-m", "model=tiny", "task=shapes_vqa", "task.limit=6", "part=llm", "quant.bits=8"]
    words += [f"model.path={model},pkg://blip2sweep.assets/tiny"]
    ran = blip2sweep(*words, "sweep_name=half", cwd=tmp_path)
    assert ran.code == 1
    assert ran.err.strip().splitlines()[-1].startswith("error: 2 of 4 cells failed: 2 bad_config; first (")
    rows = table(tmp_path, "half")
    assert rows["status"].tolist().count("done") == 2
    assert set(rows.loc[rows["status"] == "failed", "failure"]) == {"bad_config"}
    assert "failed, bad_config: 2" in blip2sweep("status", cwd=tmp_path).out


def worker_pid(folder: Path, other_than: int | None = None) -> int:
    """Wait for a worker to have a cell in hand."""

    def in_hand() -> list[int]:
        begun = [a.last_start for a in Ledger(folder / "outputs").refresh().attempts.values() if not a.done]
        return [start["pid"] for start in begun if start and start["pid"] != other_than]

    return wait_until(in_hand)[0]


def test_a_killed_worker_costs_at_most_the_cell_in_hand(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "blip2sweep",
        "-m",
        "task=shapes_vqa",
        "task.limit=200",
        "part=vit,llm",
        "quant.bits=8",
        "sweep_name=s",
    ]
    with ending(
        subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    ) as sweep:
        os.kill(worker_pid(tmp_path), signal.SIGKILL)
        _, err = sweep.communicate(timeout=240)
    ledger = Ledger(tmp_path / "outputs").refresh()
    crashed = [a for a in ledger.attempts.values() if a.failures]
    assert [a.failures[0]["kind"] for a in crashed] == ["crash"]
    assert "signal 9" in crashed[0].failures[0]["error"]
    assert sweep.returncode == 0, err  # the worker was started again, and the cell with it
    rows = table(tmp_path, "s")
    assert rows["status"].tolist() == ["done"] * 3
    assert sorted(rows["attempts"]) == [1, 1, 2]


def test_a_cell_that_kills_its_worker_twice_is_given_up(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "blip2sweep",
        "-m",
        "task=shapes_vqa",
        "task.limit=200",
        "part=vit,llm",
        "quant.bits=8",
        "sweep_name=s",
    ]
    with ending(
        subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    ) as sweep:
        first = worker_pid(tmp_path)
        os.kill(first, signal.SIGKILL)
        os.kill(worker_pid(tmp_path, other_than=first), signal.SIGKILL)
        _, err = sweep.communicate(timeout=240)
    assert sweep.returncode == 1
    assert "1 of 3 cells failed: 1 crash" in err
    again = blip2sweep(*command[3:], cwd=tmp_path)
    assert again.code == 0
    assert "2 already done, 1 to run" in again.err
    assert table(tmp_path, "s")["status"].tolist() == ["done"] * 3


def test_ctrl_c_keeps_what_is_done(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "blip2sweep",
        "-m",
        "task=shapes_vqa",
        "task.limit=100",
        "part=vit,llm,qformer",
        "quant.bits=3,8",
    ]
    with ending(
        subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    ) as sweep:
        pid = worker_pid(tmp_path)
        sweep.send_signal(signal.SIGINT)
        _, err = sweep.communicate(timeout=60)
    assert sweep.returncode == 130
    assert "the same command goes on" in err
    wait_until(lambda: gone(pid), 20)


def test_predictions_on_disk_are_those_of_the_result_line(swept: tuple[Path, Ran]) -> None:
    outputs = swept[0] / "outputs"
    for result in Ledger(outputs).refresh().results():
        assert read_predictions(outputs, stem(result["key"], result["predictions"])).hash == result["predictions"]
    lines = [x for path in (outputs / "journals").iterdir() for x in path.read_bytes().splitlines()]
    assert max(len(x) for x in lines if b'"event":"result"' in x) <= 2560  # rows stay compact
