"""A small output folder with a bit of everything, made in this process and without a model: what commands would leave."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blip2sweep.backends.backend import Answered
from blip2sweep.backends.dummy import Dummy
from blip2sweep.commands.rescore import score_results
from blip2sweep.importing.table_csv import import_csv
from blip2sweep.planning.packs import pack_data, write_packs
from blip2sweep.results.collect import collect
from blip2sweep.results.ledger import Journal, Ledger
from blip2sweep.results.sweeps import Submission, Sweep
from blip2sweep.workers.run_cell import run_cell
from blip2sweep.workers.signals import Stop
from tests.composing import plan

WORDS = ("task=shapes_vqa", "task.limit=8", "part=vit,llm", "quant.bits=2,4")
CALIBRATED = ("task=shapes_vqa", "task.limit=8", "part=llm", "quant=gptq", "quant.bits=3", "calibration.n_samples=8")


def jobs(*words: str) -> list[dict[str, Any]]:
    return [c.job() for c in plan(*(words or WORDS)).cells.values()]


def ran(
    output_dir: Path, these: Sequence[dict[str, Any]], sweep: str = "first", failing: Sequence[str] = (), run: str = "r"
) -> None:
    """The cells of a sweep, as one worker leaves them; failing: keys."""
    dummy, journal = Dummy({}), Journal(output_dir)
    ledger = Ledger(output_dir, only={j["key"] for j in these})
    pack = pack_data(these, sweep, run, output_dir, {})

    def evaluate(job: dict[str, Any]) -> Answered:
        if job["key"] in failing:
            raise RuntimeError("told to fail")
        return dummy(job)

    for job in these:
        run_cell(job, evaluate, journal, pack, Stop(), ledger)
    journal.close()


def launched(output_dir: Path, these: Sequence[dict[str, Any]], name: str = "first", **told: Any) -> Sweep:
    """A sweep's file and its pack."""
    keys = [j["key"] for j in these]
    baselines = sorted({j["baseline"] for j in these})
    launch = Submission("r", "local", {"workers": 1}, 1, pid=2**22 + 1, process="never-1")
    sweep = Sweep(name, " ".join(WORDS), 1e9 + len(name), keys, baselines, submissions=[launch], **told)
    write_packs([these], sweep.folder(output_dir), name, "r", output_dir, {})
    sweep.write(output_dir)
    return sweep


def folder(output_dir: Path) -> Path:
    """Done, failed, requeued, repeated, calibrated and imported cells, scored and collected."""
    first = jobs()
    launched(output_dir, first)
    failing = next(j["key"] for j in first if j["columns"]["recipe"].startswith("vit:all:all=rtn2"))
    ran(output_dir, first, failing=[failing])
    again = next(j for j in first if j["columns"]["recipe"].startswith("llm:all:all=rtn2"))
    rerun = {again["key"]: sorted(Ledger(output_dir).refresh().attempts[again["key"]].results)}
    launched(output_dir, [first[0], again], "again", rerun=rerun)
    ran(output_dir, [again], "again")
    calibrated = jobs(*CALIBRATED)
    launched(output_dir, calibrated, "calibrated")
    ran(output_dir, [j for j in calibrated if j["key"] != j["baseline"]], "calibrated")
    journal = Journal(output_dir)
    for key in (failing, again["key"]):
        told = {"key": key, "sweep": "first", "run": "other", "attempt": f"given-up-{key[:4]}", "job": None}
        journal.write("started", **told)
        journal.write("requeued", **told, reason="preempted")
    journal.close()
    score_results(output_dir, Ledger(output_dir).refresh().results())
    (output_dir.parent / "mine.csv").write_text("part,bits,cider\nnone,,1.2\nvit,4,1.1\n")
    import_csv(output_dir.parent / "mine.csv", output_dir)
    collect(output_dir)
    return output_dir
