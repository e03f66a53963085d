"""`blip2sweep export`: which cell, and what is refused before anything is computed."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.commands import export as verb
from blip2sweep.commands.chosen_cell import job_of_key
from blip2sweep.commands.export import export, run_export
from blip2sweep.errors import UserError
from blip2sweep.exporting import Written
from blip2sweep.exporting.manifest import check_export, write_manifest
from blip2sweep.planning.packs import write_packs
from blip2sweep.results.sweeps import Sweep
from blip2sweep.wire.pack import CellJob
from tests.checkpoints import TINY
from tests.command_line import blip2sweep, refused
from tests.composing import plan

WORDS = ("part=llm", "quant.bits=4", "task.limit=2")


def job_of(*words: str) -> CellJob:
    (job,) = [c.job() for c in plan(*words).cells.values() if not c.recipe.empty]
    return job


def planned(output_dir: Path, *jobs: CellJob, name: str = "s", created: float = 1.0) -> None:
    """A sweep of these jobs, as a launch leaves it."""
    keys = [job["key"] for job in jobs]
    Sweep(name, "command", created, keys, []).write(output_dir)
    write_packs([jobs], output_dir / "sweeps" / name, name, f"run{name}", output_dir, {})


@pytest.fixture(scope="module")
def jobs() -> list[CellJob]:
    cells = plan("part=llm,vit", "quant.bits=4,5", "task.limit=2").cells.values()
    return [c.job() for c in cells]


def test_a_job_is_found_by_the_beginning_of_its_key(tmp_path: Path, jobs: list[CellJob]) -> None:
    planned(tmp_path, *jobs)
    for job in jobs:
        assert job_of_key(tmp_path, job["key"][:8]) == job


def test_of_several_sweeps_the_newest_counts(tmp_path: Path, jobs: list[CellJob]) -> None:
    older: Any = {**jobs[0], "folder": "/elsewhere"}
    planned(tmp_path, jobs[0], name="new", created=2.0)
    planned(tmp_path, older, name="old", created=1.0)
    assert job_of_key(tmp_path, jobs[0]["key"])["folder"] == jobs[0]["folder"]


def test_keys_of_no_cell_and_of_several(tmp_path: Path, jobs: list[CellJob]) -> None:
    several: list[Any] = [{**job, "key": f"ab{i}{job['key'][3:]}"} for i, job in enumerate(jobs)]
    planned(tmp_path, *several)
    with pytest.raises(UserError, match=r"^ffff: no pack holds such a cell in .*; right: the beginning of one key"):
        job_of_key(tmp_path, "ffff")
    with pytest.raises(UserError, match=rf"^ab: {len(jobs)} cells have such a key \(ab0.*\) in"):
        job_of_key(tmp_path, "ab")
    with pytest.raises(UserError, match=r"^xyz: no key and no override; right: the beginning of a key"):
        job_of_key(tmp_path, "xyz")
    with pytest.raises(UserError, match=r"no pack holds such a cell"):
        job_of_key(tmp_path / "nothing", "ab")


def refuse(job: CellJob, to: Path, *told: str, form: str = "compressed-tensors", purpose: str | None = None) -> None:
    before = sorted(to.parent.iterdir())
    with pytest.raises(UserError) as caught:
        export(job, form, to, purpose, TorchBackend({"device": "cpu"}).made)
    lines = getattr(caught.value, "lines", (str(caught.value),))
    assert all("\n" not in line and "; right: " in line for line in lines), lines
    assert all(any(word in line for line in lines) for word in told), lines
    assert sorted(to.parent.iterdir()) == before


def test_a_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "a").write_text("a")
    refuse(job_of(*WORDS), tmp_path / "to", "holds something already; right: a new or empty folder")
    (tmp_path / "file").write_text("a")
    refuse(job_of(*WORDS), tmp_path / "file", "holds something already")


def test_an_extra_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "lacks", lambda extra: True)
    refuse(
        job_of(*WORDS),
        tmp_path / "to",
        "needs compressed-tensors, which is not installed; right: pip install 'blip2sweep[compressed-tensors]'",
    )


def test_what_the_format_cannot_hold_is_told_at_once(tmp_path: Path) -> None:
    job = job_of("part=vit+llm", "quant=hqq", "quant.bits=4", "per_part.llm.method=minmax", "task.limit=2")
    refuse(
        job,
        tmp_path / "to",
        "--to compressed-tensors: hqq has",
        "minmax makes no",
        "--for nobody: not known",
        purpose="nobody",
    )


def test_blocks_that_a_checkpoint_cannot_leave_out(tmp_path: Path) -> None:
    job = job_of("drop_blocks=qformer:1", "part=llm", "quant.bits=4", "task.limit=2")
    refuse(job, tmp_path / "to", "cannot hold the model without these blocks")


def test_a_cell_of_another_back_end(tmp_path: Path) -> None:
    other: Any = {**job_of(*WORDS), "backend": {"name": "dummy"}}
    refuse(other, tmp_path / "to", "backend=dummy of this cell runs another format; right: a cell of backend=torch")
    graphs: Any = {**job_of(*WORDS), "backend": {"name": "openvino"}}
    refuse(graphs, tmp_path / "to", "right: --to openvino")


def test_a_cell_of_another_version(tmp_path: Path) -> None:
    job = job_of(*WORDS)
    older: Any = {**job, "columns": {**job["columns"], "semantics": 1}}
    refuse(older, tmp_path / "to", "planned by another version, which made other weights")


def test_weights_that_changed_since_they_were_planned(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    shutil.copytree(TINY, folder)
    job = job_of(*WORDS, f"model.path={folder}")
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-3, 2)
        file.write(b"abc")
    refuse(job, tmp_path / "to", "changed since it was planned")


def test_the_verb_says_what_is_missing(tmp_path: Path) -> None:
    for words, to, told in (
        ([], None, "no cell"),
        (["ab"], None, "no --to"),
        (["ab"], ("nope", tmp_path), "--to nope: no such format"),
    ):
        with pytest.raises(UserError, match=told):
            run_export(words, to, None, None, None, tmp_path)


def test_files_that_were_added_are_named_and_a_folder_without_a_manifest_is_no_export(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no export, blip2sweep.json is not there; right: "):
        check_export(tmp_path)
    (tmp_path / "a").write_text("a")
    columns = {"model": "tiny", "weights": "w"}
    job: Any = {"key": "k", "recipe": [], "columns": columns}
    write_manifest(tmp_path, "onnx", None, job, Written(1, 0), None)
    assert check_export(tmp_path)["format"] == "onnx"
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "b").write_text("b")
    (tmp_path / "a").write_text("c")
    with pytest.raises(UserError, match=r"a was changed, more/b was added; right: "):
        check_export(tmp_path)


@pytest.mark.thorough
def test_a_cell_of_a_sweep_and_the_same_as_overrides(tmp_path: Path) -> None:
    ran = blip2sweep(*WORDS, cwd=tmp_path)
    assert ran.code == 0, ran
    key = job_of(*WORDS)["key"]
    for words, to in (([key[:6]], "a"), (list(WORDS), "b")):
        ran = blip2sweep("export", *words, "--to", "compressed-tensors", to, cwd=tmp_path)
        assert ran.code == 0, ran
        assert ran.out.splitlines()[0] == f"wrote {to}: llm:all:all=rtn4/channel, as compressed-tensors"
        assert "NOT what the row says" not in ran.out
        sizes = [
            int(n.replace(",", "")) for n in re.findall(r"^([\d,]+) bytes of numbers, ([\d,]+) of", ran.out, re.M)[0]
        ]
        assert sum(sizes) == sum(p.stat().st_size for p in (tmp_path / to).rglob("*") if p.is_file())
    first, second = (json.loads((tmp_path / to / "blip2sweep.json").read_text()) for to in "ab")
    assert first == second
    assert first["key"] == key
    ran = blip2sweep("export", "--check", "a", cwd=tmp_path)
    assert ran.out.startswith(f"a: compressed-tensors of cell {key}, ")
    weights = tmp_path / "a" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    refused(blip2sweep("export", "--check", "a", cwd=tmp_path), "model.safetensors has", "right: the export again")
    refused(blip2sweep("export", key, "--to", "compressed-tensors", "b", cwd=tmp_path), "holds something already")
