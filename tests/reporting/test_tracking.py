"""What is sent to W&B, and how often."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from blip2sweep.errors import UserError
from blip2sweep.machine.wandb_login import GIVEN
from blip2sweep.reporting import tracking
from blip2sweep.reporting.source import load_source
from blip2sweep.reporting.tracking import check_tracking, split_row
from blip2sweep.reporting.worst import worst_samples
from blip2sweep.results.sweeps import find_sweep
from tests.synthetic import build, whole

pytestmark = pytest.mark.thorough

wandb = pytest.importorskip("wandb")


def test_nulls_are_left_out() -> None:
    config, summary = split_row(
        {"key": "k", "part": "vit", "bits_vit": 4.0, "bits_llm": float("nan"), "cider": 1.0, "job": None}
    )
    assert config == {"part": "vit", "bits_vit": 4.0}
    assert summary == {"cider": 1.0}


def test_what_was_sent_is_not_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped upload goes on where it was; a row that changed is sent again."""
    sent: list[str] = []
    monkeypatch.setattr(tracking, "_send", lambda wandb, row, metric, common: sent.append(row["key"]))
    monkeypatch.setattr(tracking, "_send_sweep", lambda *rest: None)
    build(tmp_path, [whole(["vit"], b) for b in (2, 4, 8)])
    sweep, settings = find_sweep(tmp_path, "planted"), {"project": "p", "mode": "offline"}
    table = pd.read_parquet(sweep.folder(tmp_path) / "table.parquet")
    track = tracking.track
    assert track(tmp_path, sweep, table.head(2), settings) == 2
    assert track(tmp_path, sweep, table, settings) == 4
    assert sent == table["key"].tolist()
    table.loc[1, "cider"] = 0.5
    track(tmp_path, sweep, table, settings)
    assert sent[4:] == [table["key"][1]]
    track(tmp_path, sweep, table, settings | {"project": "another"})
    assert len(sent) == 9


def test_each_task_has_its_own_main_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row of a question has no CIDEr, so that of the captions is not its `metric`."""
    build(tmp_path, [whole(["vit"], 4)], n=40)
    sent: dict[tuple[str, str], str | None] = {}
    monkeypatch.setattr(
        tracking, "_send", lambda wandb, row, metric, common: sent.update({(row["task"], row["key"]): metric})
    )
    monkeypatch.setattr(tracking, "_send_sweep", lambda *rest: None)
    sweep = find_sweep(tmp_path, "planted")
    table = pd.read_parquet(sweep.folder(tmp_path) / "table.parquet")
    asked = table.rename(columns=lambda c: c.replace("cider", "vqa_accuracy")).assign(task="vqa")
    both = pd.concat([table, asked], ignore_index=True)
    tracking.track(tmp_path, sweep, both, {"project": "p", "mode": "offline"})
    assert {task: metric for (task, _), metric in sent.items()} == {"shapes_caption": "cider", "vqa": "vqa_accuracy"}


def test_samples_that_lost_nothing_are_not_the_worst(tmp_path: Path) -> None:
    build(
        tmp_path,
        [whole(["vit"], b) for b in (8, 2)],
        n=60,
        values=lambda e: 0.0 if e[0]["bits"] == 8 else 0.9,
        jitter=0.0,
    )
    found = worst_samples(load_source(tmp_path))
    assert set(found["recipe"]) == {"vit:all:all=rtn2/channel"}
    assert (found["drop"] > 0).all()


def test_a_likelihood_is_not_kept() -> None:
    """Twice the baseline's is no 200 % kept."""
    row = {"nll": 2.0, "baseline_nll": 1.0, "drop_nll": 1.0, "cider": 1.0, "baseline_cider": 2.0, "drop_cider": 1.0}
    assert tracking._main(row, "nll") == {"metric": 2.0, "drop": 1.0}
    assert tracking._main(row, "cider") == {"metric": 1.0, "drop": 1.0, "retained": 50.0}


def test_what_was_calibrated_on_is_config() -> None:
    """Parameter importance looks at the config alone."""
    row = {"key": "k", "part": "vit", "input_bits": 8, "calibration": "coco", "calibration_samples": 128, "cider": 1.0,
           "calibration_seed": 1, "calibration_upstream": "part", "recipe": "vit", "recipe_json": "[]"}  # fmt: skip
    config, summary = split_row(row)
    assert summary == {"cider": 1.0}
    assert config == {k: v for k, v in row.items() if k not in ("key", "cider", "recipe_json")}


class Recorded:
    """Stands for wandb and for a run: keeps what it is given."""

    def __init__(self) -> None:
        self.artifacts: list[str] = []
        self.summary: dict[str, Any] = {}
        self.logged: list[str] = []

    def init(self, **told: Any) -> Recorded:
        return self

    def Artifact(self, name: str, type: str) -> Recorded:
        self.artifacts.append(name)
        return self

    def Table(self, dataframe: pd.DataFrame) -> int:
        return len(dataframe)

    def add_file(self, path: str) -> None:
        assert Path(path).stat().st_size > 0

    def log_artifact(self, artifact: Recorded) -> None:
        assert artifact is self

    def log(self, told: dict[str, Any]) -> None:
        self.logged += told

    def finish(self) -> None:
        pass


def test_a_sweep_of_two_tasks_gets_a_page_each_or_the_reason(tmp_path: Path) -> None:
    build(tmp_path, [whole(["vit"], b) for b in (2, 8)])
    sweep = find_sweep(tmp_path, "planted")
    path = sweep.folder(tmp_path) / "table.parquet"
    table = pd.read_parquet(path)
    other, third = table.assign(task="other"), table[table["part"] != "none"].assign(task="third")
    pd.concat([table, other, third]).to_parquet(path)
    shutil.rmtree(tmp_path / "journals")  # what is left is the table
    recorded = Recorded()
    tracking._send_sweep(recorded, sweep, tmp_path, {})
    assert recorded.artifacts == ["sweep-planted", "report-tiny-shapes_caption-planted", "report-tiny-other-planted"]
    assert recorded.logged == ["worst_drops-tiny-shapes_caption", "worst_drops-tiny-other"]
    assert list(recorded.summary) == ["report-tiny-third"]
    assert recorded.summary["report-tiny-third"].startswith("no page: no baseline cell")
    assert (sweep.folder(tmp_path) / "report-tiny-other.html").exists()


def test_a_page_that_cannot_be_built_is_said_and_the_sweep_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build(tmp_path, [whole(["vit"], 2)])
    monkeypatch.setattr(tracking, "_send_page", lambda *rest: 1 / 0)
    recorded = Recorded()
    tracking._send_sweep(recorded, find_sweep(tmp_path, "planted"), tmp_path, {})
    assert recorded.summary == {"report": "no page: ZeroDivisionError: division by zero"}
    assert "no report was sent: ZeroDivisionError" in capsys.readouterr().err


def test_a_server_that_does_not_know_us_is_told_before_the_first_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*GIVEN, "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    told = {"name": "wandb", "mode": "online"}
    with pytest.raises(UserError, match=r"not logged in; right: wandb login, WANDB_API_KEY, or tracking\.mode=offline"):
        check_tracking(told)
    check_tracking({**told, "name": None})
    check_tracking({**told, "mode": "offline"})
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password x")
    check_tracking(told)
