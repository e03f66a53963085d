"""One cell in this process, as launchers of other packages run it."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blip2sweep.commands import run as run_module
from blip2sweep.commands import run_one
from blip2sweep.planning.plan import make_plan
from blip2sweep.results.ledger import Ledger
from hydra_plugins.blip2sweep.launchers import launch_foreign
from tests.composing import composer, jobs


@pytest.mark.parametrize(("measured", "value"), [(0.0, 0.0), (0.5, 0.5), (None, math.nan)])
def test_the_metric_of_a_stopped_cell_may_be_0(
    monkeypatch: pytest.MonkeyPatch, measured: float | None, value: float
) -> None:
    line = {"key": "c", "predictions": "1", "columns": {"baseline": "b"}, "stopped": {"images": 64}}
    ledger: Any = SimpleNamespace(attempts={k: SimpleNamespace(result=line) for k in "bc"})
    for name, made in (("Scored", object()), ("Baseline", object()), ("measure", {"metrics": {"cider": [measured]}})):
        monkeypatch.setattr(run_one, name, lambda *asked, made=made: made)
    assert run_one._main_value(Path(), "c", ledger, "cider") == pytest.approx(value, nan_ok=True)


class Others:
    """A launcher of another package, whose every batch fails. batches: (number of the first job, its jobs)."""

    def __init__(self) -> None:
        self.batches = list[tuple[int, list[list[str]]]]()

    def launch(self, job_overrides: list[list[str]], initial_job_idx: int) -> None:
        self.batches.append((initial_job_idx, job_overrides))
        raise RuntimeError("out of luck")


GRID = ("task=shapes_vqa", "task.limit=200", "part=vit,llm", "quant.bits=2")


@pytest.mark.thorough
@pytest.mark.parametrize(("stop", "sizes"), [("none", [3]), ("known", [1, 2])])
def test_launchers_of_others_get_the_baseline_before_cells_that_may_stop(
    stop: str, sizes: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their jobs start at once, and each would compute the baseline that it finds missing."""

    def launched(jobs: Any, run: Any) -> None:
        run(make_plan(jobs, Ledger(tmp_path).refresh()), SimpleNamespace(write=lambda folder: None), tmp_path)

    monkeypatch.setattr(run_module, "run_sweep", launched)
    words, others = (*GRID, f"evaluation.stop={stop}", f"output_dir={tmp_path}"), Others()
    launch_foreign(others, [list(job.overrides) for job in jobs(*words)], composer())  # type: ignore[arg-type]
    assert [len(batch) for _, batch in others.batches] == sizes
    assert [first for first, _ in others.batches] == [0, 1][: len(sizes)]
    assert "part=none" in others.batches[0][1][0]
    assert not any("part=none" in job for _, batch in others.batches[1:] for job in batch)
    assert capsys.readouterr().err.count("the launcher says: out of luck") == len(sizes)
