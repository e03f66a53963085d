"""Back ends: one that is not torch is in the key, has baselines and packs of its own, and never counts as torch's."""

from __future__ import annotations

import inspect
import json
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from blip2sweep.analysis.cells import refuse_mixed
from blip2sweep.backends.backend import BACKENDS, Backend, Times, backend_class, identity_of
from blip2sweep.errors import UserError
from blip2sweep.planning.costs import expected_seconds
from blip2sweep.planning.packs import make_packs, read_pack, write_packs
from blip2sweep.results.ledger import Journal, Ledger
from blip2sweep.results.table import build_table
from blip2sweep.workers.worker import run_pack
from tests.command_line import blip2sweep, refused
from tests.composing import plan

WORDS = ("task=shapes_vqa", "task.limit=4", "part=vit,llm", "quant.bits=4")


@pytest.mark.parametrize("name", BACKENDS)
def test_a_back_end_takes_what_the_protocol_says(name: str) -> None:
    made = backend_class(name)
    for method in ("__init__", "identity", "expect", "__call__"):
        asked = list(inspect.signature(getattr(Backend, method)).parameters)
        assert list(inspect.signature(getattr(made, method)).parameters) == asked, method
    assert hasattr(made, "warning") or hasattr(made({}), "warning")


@pytest.mark.parametrize("name", BACKENDS)
def test_a_back_end_that_measures_latency_has_all_of_that(name: str) -> None:
    made = backend_class(name)
    assert list(inspect.signature(made.measure).parameters) == list(inspect.signature(Times.measure).parameters)
    assert isinstance(made.RUNS_ALL, bool)
    assert isinstance(made({"device": "cpu"}).device_name, str)


def test_torch_is_in_no_identity_and_any_other_back_end_is() -> None:
    torch, dummy = plan(*WORDS), plan(*WORDS, "backend=dummy")
    assert plan(*WORDS, "backend=torch").keys == torch.keys
    assert not set(torch.cells) & set(dummy.cells)  # baselines too
    for mine, theirs in zip(torch.cells.values(), dummy.cells.values(), strict=True):
        assert theirs.identity == {**mine.identity, "backend": {"name": "dummy", "version": 1}}
        assert "backend" not in mine.job()
        assert theirs.job()["backend"] == {"name": "dummy"}
        assert theirs.baseline().key in dummy.baselines
    assert identity_of({"name": "torch"}) is None


def test_packs_are_of_one_back_end(tmp_path: Path) -> None:
    made = plan(*WORDS, "backend=torch,dummy")
    assert len(made.baselines) == 2
    jobs = [c.job() for c in made.todo]
    packs = make_packs(jobs, 1)
    assert sorted(j["key"] for p in packs for j in p) == sorted(made.cells)
    assert [{j.get("backend", {}).get("name") for j in p} for p in packs] == [{None}, {"dummy"}]
    paths = write_packs(packs, tmp_path / "sweeps" / "s", "s", "r", tmp_path, {"batch_size": 2})
    assert [json.loads(p.read_text())["settings"].get("backend") for p in paths] == [None, {"name": "dummy"}]


@pytest.mark.thorough
def test_rows_say_which_back_end_and_are_not_compared(tmp_path: Path) -> None:
    jobs = [c.job() for c in plan(*WORDS, "backend=dummy").todo]
    (path,) = write_packs([jobs], tmp_path / "sweeps" / "s", "s", "r", tmp_path, {})
    with closing(Journal(tmp_path)) as journal:
        assert run_pack(read_pack(path), journal) == 0
    ledger = Ledger(tmp_path).refresh()
    table = build_table(ledger)
    assert set(table["backend"]) == {"dummy"}
    both = pd.concat([table, table.assign(backend="torch")])
    with pytest.raises(UserError, match="cells of 2 kinds of backend are not compared: "):
        refuse_mixed(both)
    guessed = expected_seconds([c.job() for c in plan(*WORDS).todo], ledger)
    measured = expected_seconds(jobs, ledger)
    assert all(measured[j["key"]] != guess for j, guess in zip(jobs, guessed.values(), strict=True))
    halved = expected_seconds(jobs, ledger, processes=2)
    assert halved == {key: seconds / 2 for key, seconds in measured.items()}


@pytest.mark.thorough
def test_what_a_back_end_cannot_do_is_said_before_anything_runs(tmp_path: Path) -> None:
    refused(blip2sweep("-m", "backend=dumy", cwd=tmp_path), "backend=dumy", "did you mean 'dummy'")
    refused(blip2sweep("-m", "backend.name=vllm", cwd=tmp_path), "backend=vllm: no such back end")
    with pytest.raises(
        UserError, match=r"backend=dummy: quant\.packed asks for kernels of torch; right: backend=torch"
    ):
        plan("quant=int8", "part=llm", "quant.packed=cpu", "backend=dummy")
    assert not list(tmp_path.iterdir())
