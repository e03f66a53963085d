"""Results of another folder are taken whole or not at all, as often as one likes, and what contradicts is said."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
import pytest

from blip2sweep.commands import merge_sweeps
from blip2sweep.commands.forget import forget
from blip2sweep.commands.merge import merge
from blip2sweep.commands.other_users import owner
from blip2sweep.commands.rescore import score_results
from blip2sweep.console import remarks
from blip2sweep.errors import UserError
from blip2sweep.files import write_json
from blip2sweep.importing.table_csv import import_csv
from blip2sweep.results import merging
from blip2sweep.results.collect import collect
from blip2sweep.results.committed import predictions_name
from blip2sweep.results.ledger import Journal, Ledger
from blip2sweep.results.predictions import read_predictions, stem, write_predictions
from blip2sweep.results.sweep_code import outside_code
from blip2sweep.results.sweeps import find_sweep, list_sweeps, read_sweep
from blip2sweep.tasks.predictions import Predictions
from tests import ledgers
from tests.command_line import blip2sweep

WORDS = ("task=shapes_vqa", "task.limit=8", "part=vit,llm", "quant.bits=3,4")  # two cells and the baseline are shared


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders, `here` and `there`."""
    both = tmp_path_factory.mktemp("made")
    for name, words in (("here", ledgers.WORDS), ("there", WORDS)):
        jobs = ledgers.jobs(*words)
        ledgers.launched(both / name, jobs)
        ledgers.ran(both / name, jobs)
        log = both / name / "logs" / "first" / "r" / "0.log"
        log.parent.mkdir(parents=True)
        log.write_text(name)
        score_results(both / name, Ledger(both / name).refresh().results())
        collect(both / name)
    sweep = find_sweep(both / "there", "first")
    sweep.created += 1
    sweep.write(both / "there")
    return both


@pytest.fixture
def here(made: Path, tmp_path: Path) -> Path:
    """A copy of both; everything may be said again."""
    remarks.forget()
    for name in ("here", "there"):
        shutil.copytree(made / name, tmp_path / name, copy_function=shutil.copy2)
    return tmp_path / "here"


@pytest.fixture
def there(here: Path) -> Path:
    return here.with_name("there")


def files(folder: Path, kinds: Iterable[str] = (".json", ".jsonl", ".npz", ".log")) -> dict[str, bytes]:
    """{path: content} of all that a merge copies."""
    found = (p for p in folder.rglob("*") if p.suffix in kinds and ".journals" not in p.parts)
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


def keys(folder: Path) -> set[str]:
    return set(pd.read_parquet(folder / "table.parquet")["key"])


def recorded(folder: Path, key: str, texts: list[str], attempt: str, replaces: Sequence[str] = ()) -> None:
    """Another result of a cell, which knows of no other than those it replaces."""
    result = next(r for r in Ledger(folder).refresh().results() if r["key"] == key)
    old = read_predictions(folder, predictions_name(result))
    new = Predictions(**{**old.columns, "text": texts})
    note = write_predictions(folder, stem(key, new.hash), new)
    journal = Journal(folder)
    told = {"predictions": new.hash, "files": {"predictions": note}, "replaces": [*replaces], "starts": []}
    journal.write(
        "result", key=key, sweep="first", run="x", attempt=attempt, job=None, **told, columns=result["columns"]
    )
    journal.close()


# ---- what is taken


def test_results_of_both_are_in_the_table_and_a_second_time_changes_nothing(here: Path, there: Path) -> None:
    before, theirs = files(here), files(there)
    both = keys(here) | keys(there)
    said = merge(there, here)
    assert said == [f"merged {there} into {here}: 2 cells new, 3 there before; 1 sweep new (first as first-2)"]
    assert keys(here) == both
    assert set(pd.read_parquet(here / "samples.parquet")["key"]) == both
    after = files(here)
    assert before.items() <= after.items()
    copied = {name: data for name, data in theirs.items() if not name.startswith(("sweeps", "logs"))}
    assert copied.items() <= after.items()
    assert files(there) == theirs
    sweep = find_sweep(here, "first-2")
    assert sweep.keys == find_sweep(there, "first").keys
    assert len(pd.read_parquet(here / "sweeps" / "first-2" / "table.parquet")) == 5
    assert (here / "logs" / "first-2" / "r" / "0.log").read_text() == "there"
    assert merge(there, here) == [f"merged {there} into {here}: 0 cells new, 5 there before; no sweep new"]
    assert files(here) == after


def test_the_same_both_ways(here: Path, there: Path) -> None:
    shutil.copytree(here, other := here.with_name("other"), copy_function=shutil.copy2)
    merge(there, here)
    merge(other, there)
    columns = ["key", "vqa_accuracy", "predictions", "host"]
    one, two = (
        pd.read_parquet(f / "table.parquet").sort_values("key")[columns].reset_index(drop=True) for f in (here, there)
    )
    pd.testing.assert_frame_equal(one, two)


def test_a_new_folder_may_be_merged_into(here: Path) -> None:
    merge(here, new := here.with_name("new"))
    assert keys(new) == keys(here)
    assert {p.name: p.stat().st_size for p in (new / ".journals").iterdir()} == {
        p.name: p.stat().st_size for p in (here / ".journals").iterdir() if (new / "journals" / p.name).exists()
    }


def test_what_is_added_there_later_is_taken_and_a_torn_line_is_not(
    here: Path, there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merge(there, here)
    more = ledgers.jobs("task=shapes_vqa", "task.limit=8", "part=vit", "quant.bits=8")
    sweep = find_sweep(there, "first")
    sweep.keys = list(dict.fromkeys([*sweep.keys, *(j["key"] for j in more)]))
    sweep.write(there)
    journal = next(p for p in (there / "journals").glob("*.jsonl") if b'"result"' in p.read_bytes())
    ledgers.ran(there, [j for j in more if j["key"] != j["baseline"]])
    with journal.open("ab") as file:
        file.write(b'{"event":"res')
    assert merge(there, here)[0].startswith(f"merged {there} into {here}: 1 cell new, 5 there before; no sweep new")
    assert more[-1]["key"] in keys(here)
    assert find_sweep(here, "first-2").keys == sweep.keys
    assert b'{"event":"res' not in (here / "journals" / journal.name).read_bytes()[-20:]
    assert "damaged" not in capsys.readouterr().err


def test_a_sweep_that_runs_there_says_what_is_to_come(here: Path, there: Path) -> None:
    sweep = find_sweep(there, "first")
    sweep.keys.append("f" * 12)
    sweep.write(there)
    assert merge(there, here)[1] == "  1 cell without a result there: merging again takes it when there is one"


def test_imports_of_one_name_are_both_there(here: Path, there: Path) -> None:
    for folder, text in ((here, "vit,4,1.1"), (there, "llm,4,1.0")):
        (folder.parent / "mine.csv").write_text(f"part,bits,cider\nnone,,1.2\n{text}\n")
        import_csv(folder.parent / "mine.csv", folder)
    assert "3 cells new" in merge(there, here)[0]
    assert "0 cells new" in merge(there, here)[0]
    table = pd.read_parquet(here / "table.parquet")
    assert set(table.loc[table["imported"].notna(), "part"]) >= {"vit", "llm"}


# ---- what contradicts


@pytest.mark.parametrize(("attempt", "winner"), [("zzz", "there"), ("000", "here")])
def test_other_outputs_of_one_cell_are_said_and_one_counts(here: Path, attempt: str, winner: str) -> None:
    (result,) = (r for r in Ledger(here).refresh().results() if r["columns"]["recipe"].startswith("vit:all:all=rtn4"))
    key, before = result["key"], result["attempt"]
    shutil.copytree(here, other := here.with_name("other"), copy_function=shutil.copy2)
    recorded(other, key, ["other"] * 8, attempt)
    for path in (here / "journals").iterdir():
        (other / "journals" / path.name).unlink()
    shutil.rmtree(other / "sweeps")
    said = merge(other, here)
    told = f"that of {other}" if winner == "there" else "that of here"
    assert said[1].startswith("  1 cell with other outputs here and there; one of the two counts everywhere")
    assert said[1].endswith(f"{key}: {told}")
    assert f"--rerun {key}" in said[2]
    now = Ledger(here).refresh().attempts[key].result
    assert now is not None
    assert now["attempt"] == (attempt if winner == "there" else before)


def test_a_result_that_replaced_the_other_is_no_contradiction(here: Path) -> None:
    key = next(
        r["key"] for r in Ledger(here).refresh().results() if r["columns"]["recipe"].startswith("vit:all:all=rtn4")
    )
    shutil.copytree(here, other := here.with_name("other"), copy_function=shutil.copy2)
    recorded(other, key, ["other"] * 8, "000", replaces=sorted(Ledger(other).refresh().attempts[key].all_results))
    assert len(merge(other, here)) == 1
    assert Ledger(here).refresh().attempts[key].results >= {"000"}
    now = Ledger(here).refresh().attempts[key].result
    assert now is not None
    assert now["attempt"] == "000"


def test_the_same_outputs_are_no_contradiction(here: Path, there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(merge(there, here)) == 1
    remarks.forget()
    Ledger(here).refresh()
    assert "do not know each other" not in capsys.readouterr().err


def test_journals_of_one_name_that_differ_are_refused(here: Path, there: Path) -> None:
    mine = next((here / "journals").glob("*.jsonl"))
    (there / "journals" / mine.name).write_bytes(next((there / "journals").glob("*.jsonl")).read_bytes())
    before = files(here)
    with pytest.raises(UserError, match="1 journal of one name that do not go on from each other"):
        merge(there, here)
    assert files(here) == before


def test_damaged_predictions_here_come_whole_from_there(here: Path, there: Path) -> None:
    (shared,) = {p.name for p in (here / "predictions").iterdir()} & {
        p.name for p in (there / "predictions").iterdir() if "rtn4" in _recipe(there, p)
    } - {p.name for p in (here / "predictions").iterdir() if "llm" in _recipe(here, p)}
    (here / "predictions" / shared).write_bytes(b"{}")
    merge(there, here)
    assert (here / "predictions" / shared).read_bytes() == (there / "predictions" / shared).read_bytes()


def _recipe(folder: Path, path: Path) -> str:
    found = {r["key"]: str(r["columns"]["recipe"]) for r in Ledger(folder).refresh().results()}
    return found.get(path.name.partition("-")[0], "")


# ---- what was forgotten


def test_what_is_forgotten_there_is_forgotten_here_and_said(here: Path, there: Path) -> None:
    merge(there, here)
    (key,) = (
        r["key"] for r in Ledger(there).refresh().results() if r["columns"]["recipe"].startswith("llm:all:all=rtn3")
    )
    forget(there, key)
    assert f"1 cell forgotten there, and so here now: {key}" in merge(there, here)[1]
    assert key not in keys(here)


def test_a_sweep_that_is_forgotten_there_is_not_listed_here(here: Path, there: Path) -> None:
    forget(there, "first")
    merge(there, here)
    assert [s.name for s in list_sweeps(here)] == ["first"]
    assert find_sweep(here, "first").created == read_sweep(here / "sweeps" / "first" / "sweep.json").created
    assert "0 cells new" in merge(there, here)[0]
    assert len(list_sweeps(here, forgotten=True)) == 2


def test_what_is_forgotten_here_stays_so(here: Path, there: Path) -> None:
    merge(there, here)
    (key,) = (
        r["key"] for r in Ledger(there).refresh().results() if r["columns"]["recipe"].startswith("llm:all:all=rtn3")
    )
    forget(here, key)
    assert f"1 cell forgotten here, and so it stays: {key}" in merge(there, here)[1]


# ---- another user's


def test_code_that_another_users_sweep_names_is_not_trusted_after_a_merge(
    here: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = find_sweep(there, "first")
    sweep.settings["outside"] = {"tasks.mine": {"file": "/tmp/mine.py", "sha256": "0"}}  # type: ignore[typeddict-item]
    sweep.write(there)
    monkeypatch.setattr(merge_sweeps.os, "geteuid", lambda: 54321)
    monkeypatch.setattr(merge_sweeps, "user_name", lambda uid: "anna")
    merge_sweeps.merge_sweeps(there, here)
    monkeypatch.undo()
    merged = find_sweep(here, "first-2")
    assert owner(here, merged) == "anna"
    assert outside_code(here) == {}
    assert outside_code(there) != {}


def test_a_sweep_whose_name_leads_elsewhere_is_left_out(
    here: Path, there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = find_sweep(there, "first")
    sweep.name = "../../away"
    write_json(there / "sweeps" / "first" / "sweep.json", sweep.data())
    assert "no sweep new" in merge(there, here)[0]
    assert not (here.parent / "away").exists()
    assert "a sweep is left out: sweep_name=../../away: not a folder name" in capsys.readouterr().err


def test_links_are_not_followed(here: Path, there: Path) -> None:
    secret = here.parent / "secret"
    secret.write_text("mine")
    (there / "predictions" / "link.json").symlink_to(secret)
    merge(there, here)
    assert not (here / "predictions" / "link.json").exists()


# ---- what is refused


def test_no_folder_the_same_one_and_a_nested_one(here: Path, there: Path) -> None:
    (there / "empty").mkdir()
    shutil.copytree(here / "journals", here / "inside" / "journals")
    before = files(here)
    link = here.parent / "link"
    link.symlink_to(here)
    for other, told in (
        (there / "empty", "no output folder: it has no journals"),
        (there / "nope", "no such folder"),
        (here, "that is the output folder itself"),
        (link, "that is the output folder itself"),
        (here / "inside", "one of the two folders is in the other"),
    ):
        with pytest.raises(UserError, match=told):
            merge(other, here)
    with pytest.raises(UserError, match="one of the two folders is in the other"):
        merge(here, here / "inside")
    assert files(here) == before


def test_a_disk_without_room_is_said_first(here: Path, there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(here)
    monkeypatch.setattr(merging.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 0))  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"the disk has 0\.00 GB; right: more room"):
        merge(there, here)
    assert files(here) == before


def test_journals_that_cannot_be_read_are_named(here: Path, there: Path) -> None:
    for name in "ab":
        (there / "journals" / f"{name}.jsonl").mkdir()
    with pytest.raises(UserError, match=r"cannot be read: .*a\.jsonl \(Is a directory\), .*b\.jsonl"):
        merge(there, here)


def test_as_typed(here: Path) -> None:
    ran = blip2sweep("merge", "there", "--output-dir", "here", cwd=here.parent)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("merged there into here: 2 cells new, 3 there before")


# ---- a killed one

KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from blip2sweep import files
from blip2sweep.commands.merge import merge
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.predictions import read_predictions
from blip2sweep.results.committed import predictions_name

made, room = Path(sys.argv[1]), Path(sys.argv[2])

def killed_at(n, here):
    '''Merge in a process that is killed when it has written n files under their temporary names.'''
    pid = os.fork()
    if pid == 0:
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        write, left = files._write, [n]
        def counted(path, data, place):
            def placing(temporary, path):
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
                place(temporary, path)
            write(path, data, placing)
        files._write = counted
        merge(made / "there", here)
        os._exit(0)
    return os.WTERMSIG(os.waitpid(pid, 0)[1])

n, signalled = 0, signal.SIGKILL
while signalled:
    here = room / str(n)
    shutil.copytree(made / "here", here, copy_function=shutil.copy2)
    signalled = killed_at(n, here)
    n += 1
print(n)
"""


@pytest.mark.thorough
def test_killed_at_any_write_it_leaves_whole_results_and_goes_on(made: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(made), str(tmp_path)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, check=True, capture_output=True, text=True, env=env, timeout=300)
    count = int(ran.stdout)
    assert count > 8  # predictions, scores, journals, a sweep, a pack, a log, tables
    mine = {r["key"]: r["attempt"] for r in Ledger(made / "here").refresh().results()}
    whole = {k: v for k, v in files(tmp_path / str(count - 1)).items() if "-measured" not in k}
    for n in range(count - 1):
        folder = tmp_path / str(n)
        remarks.forget()
        results = Ledger(folder).refresh().results()
        assert mine.keys() <= {r["key"] for r in results}
        for result in results:  # what counts is whole
            assert read_predictions(folder, predictions_name(result)).columns
        merge(made / "there", folder)
        assert _lasting(files(folder)) == _lasting(whole)
        assert keys(folder) == keys(tmp_path / str(count - 1))


def _lasting(found: dict[str, bytes]) -> dict[str, bytes]:
    """Without journals in which tables are measured: each process that makes tables writes its own."""
    return {name: data for name, data in found.items() if not data.startswith(b'{"event":"measured"')}
