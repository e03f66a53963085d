"""Commands typed into this process, whose workers run here too: Hydra, torch and transformers are imported once."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, redirect_stdout
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from blip2sweep import outside
from blip2sweep.__main__ import main
from blip2sweep.cache import disk as cache
from blip2sweep.models.checkpoints import inspect
from blip2sweep.planning.packs import read_pack
from blip2sweep.results.ledger import Journal
from blip2sweep.results.scoring_service import Service
from blip2sweep.wire.lines import Failure
from blip2sweep.wire.model_section import ModelSection
from blip2sweep.wire.pack import TaskJob
from blip2sweep.wire.scoring import ScoreRequest
from blip2sweep.workers.supervisor import Supervisor
from blip2sweep.workers.worker import run_pack


def forget() -> None:
    """As in a new process, for code from outside."""
    outside.forget()


class ScoringHere:
    """In the place of ScoringProcess: scores each cell when it is submitted."""

    def __init__(self, output_dir: Path, minutes: float | None = None) -> None:
        self._service = Service(output_dir)

    def warm(self, task: TaskJob) -> None:
        pass

    def submit(self, key: str, name: str, task: TaskJob, baseline: str, control: str | None = None) -> None:
        request: ScoreRequest = {"key": key, "name": name, "task": task, "baseline": baseline}
        (answer,) = self._service([{**request, "control": control} if control else request])
        assert answer["failure"] is None

    def unscored(self) -> Iterator[tuple[str, Failure]]:
        return iter(())

    def close(self) -> None:
        self._service.close()


def check_here(folder: Path, model: ModelSection) -> list[str]:
    """In the place of the process that compares a checkpoint with its config."""
    from blip2sweep.models.check import mistakes

    return mistakes(inspect(folder, model.get("tied") or ()), model)


@contextmanager
def workers_here(but: Callable[[Supervisor], bool] = lambda supervisor: False) -> Iterator[None]:
    """Workers run and score in this process, and checkpoints are checked in it.

    but: which supervisors start a worker process all the same. What a supervisor does for a worker that dies is tested elsewhere.
    """
    in_a_process = Supervisor._run_child

    def run(supervisor: Supervisor) -> int:
        if but(supervisor):
            return in_a_process(supervisor)
        with closing(Journal(supervisor.output_dir)) as journal:
            return run_pack(read_pack(supervisor.path), journal)

    import torch  # the toys import it too

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a process with OMP_NUM_THREADS=1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Supervisor, "_run_child", run)
        patch.setattr("blip2sweep.workers.run_cell.ScoringProcess", ScoringHere)
        patch.setattr("blip2sweep.models.checkpoints.verdict._answer_of_child", check_here)
        yield
    torch.set_num_threads(threads)


def typed(words: Sequence[str]) -> str:
    """What `blip2sweep words` prints to stdout. The command must succeed."""
    forget()
    GlobalHydra.instance().clear()
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out):
        for name in [k for k in os.environ if k.startswith(("BLIP2SWEEP_", "HYDRA_")) and k != cache.USER]:
            patch.delenv(name)
        patch.setenv("COLUMNS", "100")
        patch.setenv("HYDRA_FULL_ERROR", "1")
        patch.setattr("sys.argv", ["blip2sweep", *words])
        with pytest.raises(SystemExit) as end:
            main(words)
    assert end.value.code == 0
    return out.getvalue()
