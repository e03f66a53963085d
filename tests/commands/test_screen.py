"""`blip2sweep screen`: what it runs, what it says, how it goes on, and what it refuses."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from blip2sweep.commands import run as run_module
from blip2sweep.commands.screen import half_widths, named, run_screen
from blip2sweep.commands.screen_rounds import Rounds, Way
from blip2sweep.errors import SweepFailed, UserError
from blip2sweep.files import write_atomic
from blip2sweep.metrics.stopping import Rule
from blip2sweep.planning.plan import Plan
from blip2sweep.results.collect import collect
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.lines import sealed
from blip2sweep.results.sweeps import Sweep, read_sweep
from blip2sweep.running.queue import QueueState
from blip2sweep.running.status import sweep_status
from blip2sweep.tasks.order import order_of, prefix
from tests.command_line import blip2sweep
from tests.composing import jobs, plan
from tests.synthetic import FINGERPRINT, WEIGHTS, _outputs, damage

GRID = ["task.limit=200", "quant.bits=2,3,4,6,8", "part=vit,qformer,llm,vit+llm,all"]
ASKED = 16  # cells at random before anything is predicted
N, IDS = 200, list(range(1000, 1200))


class Planted:
    """Launches cells on paper: scores by a planted damage. launched: {key: images it saw, launch by launch}. together:
    the keys of each launch. ends_after: launches before Ctrl-C; failing: keys of cells without a result; base: the mean of
    the baseline's scores."""

    def __init__(self, ends_after: int | None = None, base: float = 1.2) -> None:
        self.launched: dict[str, list[int]] = {}
        self.together = list[list[str]]()
        self.ends_after, self.failing, self.base = ends_after, set[str](), base

    def __call__(self, plan: Plan, sweep: Sweep, output_dir: Path) -> bool:
        if self.ends_after == 0:
            raise KeyboardInterrupt
        self.ends_after = None if self.ends_after is None else self.ends_after - 1
        self.together.append([cell.key for cell in plan.to_launch])
        rows = [self.row(plan, cell.key, output_dir) for cell in plan.to_launch if cell.key not in self.failing]
        path = output_dir / "journals" / f"planted-{uuid.uuid4().hex}.jsonl"
        write_atomic(path, b"".join(sealed(row, i) for i, row in enumerate(rows)))
        sweep.write(output_dir)
        return True

    def row(self, plan: Plan, key: str, output_dir: Path) -> dict[str, object]:
        request, job = plan.stopping.request, plan.cells[key].job()
        margin = None if request is None else request.get("margins", {}).get(key, request["margin"])
        n = N if request is None or margin is None or key not in request["images"] else 64 if margin > 0.1 else 96
        self.launched.setdefault(key, []).append(n)
        rng = np.random.default_rng(int(key, 16) % 2**32)
        base = np.clip(np.random.default_rng(0).normal(self.base, 0.8, N), 0, None)
        share = damage(job["recipe"], WEIGHTS) if job["recipe"] else 0.0
        scores = np.clip(base * (1 - share) + rng.normal(0, 0.05, N) * bool(job["recipe"]), 0, None)
        kept = list(prefix(order_of(FINGERPRINT, IDS), IDS, n)) if n < N else list(range(N))
        outputs = _outputs(
            output_dir, key, [IDS[i] for i in kept], [f"{key} says {i}" for i in kept], scores[kept], 1, 1
        )
        line = {"event": "result", "time": time.time(), "host": "here", "key": key, "predictions": outputs,
                "columns": {**job["columns"], "baseline": job["baseline"]}}  # fmt: skip
        stopped = (
            {"images": n, "of": N, "reason": "known to ±20 %", "stop": "known", "margin": margin}
            if n < N and request
            else {}
        )
        return {**line, **({"stopped": stopped} if stopped else {})}


@pytest.fixture(autouse=True, scope="module")
def _no_scorers() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "finish", lambda output_dir, sweep, **rest: collect(output_dir, sweep))
        yield


def screened(folder: Path, launch: Planted, *words: str) -> None:
    run_screen(jobs(*GRID, f"output_dir={folder}", *words), Way(launch))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Planted]:
    """A screening to its end, for the tests that look at it."""
    folder, launch = tmp_path_factory.mktemp("screened"), Planted()
    screened(folder, launch, "sweep_name=s")
    return folder, launch


def test_less_than_the_grid_is_run_and_the_frontier_whole(done: tuple[Path, Planted]) -> None:
    folder, launch = done
    images = sum(own[-1] for own in launch.launched.values())
    assert images < 0.75 * N * 26
    table = pd.read_parquet(folder / "sweeps/s/table.parquet").set_index("key")
    whole = table[table["images"] == N]
    small = whole[whole["model_bytes"] == whole["model_bytes"].min()]
    assert len(whole) < len(table)
    assert not small.empty
    base = table[table["part"] == "none"]
    assert list(base["images"]) == [N]


def test_the_baseline_is_run_alone_before_all_others(done: tuple[Path, Planted]) -> None:
    """So that every cell is compared with it at its first look, however many workers there are."""
    folder, launch = done
    (path,) = folder.glob("sweeps/*/sweep.json")
    assert launch.together[0] == read_sweep(path).baselines
    assert len(launch.together[1]) == ASKED


def test_a_baseline_without_a_result_ends_it(tmp_path: Path) -> None:
    launch = Planted()
    launch.failing = {plan(*GRID).baselines[0]}
    with pytest.raises(SweepFailed, match="the baseline has no result; right: blip2sweep logs"):
        screened(tmp_path, launch)
    assert launch.launched == {}


def test_a_baseline_of_0_ends_it(tmp_path: Path) -> None:
    launch = Planted(base=-100.0)
    with pytest.raises(UserError, match="the baseline's cider is 0, so nothing can be predicted as a share of it"):
        screened(tmp_path, launch)
    assert len(launch.launched) == 1
    with pytest.raises(UserError, match="the baseline's cider is 0"):
        screened(tmp_path, launch)  # the same words again


def test_all_rules_of_scoring_are_asked_for(tmp_path: Path) -> None:
    words = ("task=shapes_vqa", "task.limit=200", "part=vit,llm", "quant.bits=2,4", f"output_dir={tmp_path}")
    made = jobs(*words, "task.rule=official,lavis")
    rounds = Rounds.planned(named(made, "words"), Way(Planted()), "words", Rule("known", 0.2))
    assert [len(own) for own in rounds.jobs.values()] == [2] * 4


def test_every_round_is_the_same_sweep_and_none_of_its_cells_is_lost(done: tuple[Path, Planted]) -> None:
    folder, launch = done
    (path,) = folder.glob("sweeps/*/sweep.json")
    sweep = read_sweep(path)
    assert set(sweep.keys) == launch.launched.keys()
    assert sweep.command.startswith("screen ")  # else `sweeps` and the page would have a sweep of the whole grid
    status = sweep_status(folder, sweep, Ledger(folder), QueueState())
    assert set(status.states.values()) == {"done"}


def test_it_says_what_it_did_and_what_comes_next(
    done: tuple[Path, Planted], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = done
    again = Planted()
    screened(folder, again, "sweep_name=s")
    told = capsys.readouterr()
    assert again.launched == {}  # the same words again run nothing
    found = re.search(
        r"(\d+) of 25 cells looked at, (\d+) of them on all 200 images; with the baseline ([\d.]+) %", told.out
    )
    assert found
    assert int(found[2]) < int(found[1]) <= 25
    assert float(found[3]) < 75
    assert "bits per weight" in told.out
    assert f"blip2sweep recommend s --output-dir {folder} --max-drop 2%" in told.out
    assert f"blip2sweep report s --output-dir {folder}" in told.out


def test_a_screening_that_ended_goes_on_and_runs_nothing_twice(
    done: tuple[Path, Planted], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = Planted(ends_after=2), Planted()
    with pytest.raises(KeyboardInterrupt):
        screened(tmp_path, first)
    assert "what was seen is kept, and the same command goes on: blip2sweep screen" in capsys.readouterr().err
    screened(tmp_path, second)
    told = capsys.readouterr().err
    assert re.search(r"\d+ of 25 cells were looked at before, \d+ of them on all images", told)
    assert "were there" not in told  # what the sweep has, and how many cells are planned again, is no news
    assert "already done" not in told
    both = {k: [*first.launched.get(k, []), *second.launched.get(k, [])] for k in {**first.launched, **second.launched}}
    assert all(seen == sorted(set(seen)) for seen in both.values())  # only further, never the same again
    assert len([*tmp_path.glob("sweeps/*")]) == 1  # without a name the same words have the same one
    assert len(both) <= 26


@pytest.mark.thorough
def test_cells_that_fail_are_said_and_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launch = Planted()
    launch.failing = {*_keys(tmp_path)[3:5]}
    with pytest.raises(
        SweepFailed,
        match=r"2 cells failed and may be missing .* right: blip2sweep logs \w{12}, and the same command tries again",
    ):
        screened(tmp_path, launch)
    assert "cells looked at" in capsys.readouterr().out


def _keys(folder: Path) -> Sequence[str]:
    from blip2sweep.planning.plan import make_plan

    made = make_plan(jobs(*GRID), Ledger(folder).refresh())
    return [k for k in made.keys if k]


def test_the_plan_of_it_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_screen(jobs(*GRID, f"output_dir={tmp_path / 'o'}"), Way(Planted()), dry=True)
    told = capsys.readouterr().out
    assert "screening: 25 cells: 25 that predict each other, in 1 setting" in told
    assert f"first the baseline on all 200 images, and {ASKED} cells until they are known to ±20 %" in told
    assert not (tmp_path / "o").exists()


def test_how_closely_cells_are_known_first() -> None:
    assert half_widths(jobs("quant.bits=2,4"))[0] == 0.2
    asked = half_widths(jobs("quant.bits=2,4", "evaluation.half_width=10%"))
    assert asked[0] == 0.1
    assert list(asked) == sorted(asked, reverse=True)
    assert half_widths(jobs("quant.bits=2,4", "evaluation.stop=known", "evaluation.half_width=0.01")) == (0.01,)


REFUSED = {
    "a verdict": (["evaluation.stop=verdict"], "evaluation.stop=verdict: a verdict predicts no other cell"),
    "no stopping": (["evaluation.stop=none"], "evaluation.stop=none: screen runs cells on some images first"),
    "a margin of another rule": (["evaluation.tolerance=5%"], "evaluation.tolerance=5%: screen stops cells that are known, by evaluation.half_width; right: leave it out"),
    "a margin that is none": (["evaluation.half_width=120%"], "evaluation.half_width=120%: right: more than 0 %"),
    "two tasks": (["task=shapes_caption,shapes_vqa"], "screen: 2 baselines (tiny on shapes_caption; tiny on shapes_vqa)"),
    "only the baseline": (["part=none"], "screen: no cell but the baseline"),
    "one cell": (["part=vit"], "screen: one cell beside the baseline, and it chooses among several; right: several values"),
    "a cell again": (["rerun=[abc]"], "--rerun abc: screen chooses what it runs"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_refuses(name: str, tmp_path: Path) -> None:
    words, told = REFUSED[name]
    words = words if any(w.startswith("part") for w in words) else [*GRID, *words]
    with pytest.raises(UserError, match=re.escape(told)):
        run_screen(jobs(*words, f"output_dir={tmp_path / 'o'}"), Way(Planted()))
    assert not (tmp_path / "o").exists()


@pytest.mark.thorough
def test_a_screening_of_the_embedded_model(tmp_path: Path) -> None:
    words = ["screen", "task=shapes_vqa", "task.limit=400", "part=vit,llm", "quant.bits=2,8", "sweep_name=s"]
    ran = blip2sweep(*words, cwd=tmp_path)
    assert ran.code == 0, ran.err
    table = pd.read_parquet(tmp_path / "outputs/sweeps/s/table.parquet")
    assert (table["stopped"] != "").any()
    assert len(table) == 5
    again = blip2sweep(*words, cwd=tmp_path)
    assert again.out == ran.out
    assert (
        pd.read_parquet(tmp_path / "outputs/sweeps/s/table.parquet")["attempts"].tolist() == table["attempts"].tolist()
    )
