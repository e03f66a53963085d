"""`blip2sweep rescore`: metrics of committed predictions, without inference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from blip2sweep import outside
from blip2sweep.commands.other_users import its_code, owner
from blip2sweep.console.printing import tell
from blip2sweep.errors import SweepFailed, UserError
from blip2sweep.planning.packs import whole_packs
from blip2sweep.results.asked import ALL, as_asked, ask_for, rounds
from blip2sweep.results.collect import collect
from blip2sweep.results.committed import predictions_name
from blip2sweep.results.ledger import Journal, Ledger
from blip2sweep.results.predictions import predictions_or_none, read_scores
from blip2sweep.results.scoring_process import ScoringProcess
from blip2sweep.results.sweep_code import outside_code
from blip2sweep.results.sweeps import find_sweep, list_sweeps
from blip2sweep.results.table_files import write_sweep
from blip2sweep.results.unscored import NO_PACK
from blip2sweep.wire.lines import Failure, ResultLine
from blip2sweep.wire.pack import CellJob
from blip2sweep.wire.scoring import Asked

BY_DEFAULT: Mapping[str, Asked | None] = MappingProxyType({})


@dataclass
class Rescored:
    """written: keys whose statistics were made; failed: {key: why not}."""

    written: set[str] = field(default_factory=set)
    failed: dict[str, Failure] = field(default_factory=dict)

    def add(self, other: Rescored) -> None:
        """Take in what another round did."""
        self.written |= other.written
        self.failed |= other.failed

    @property
    def why_not(self) -> str:
        """`2 cells not scored, the first is KEY: …`."""
        key, told = next(iter(self.failed.items()))
        return f"{len(self.failed)} cells not scored, the first is {key}: {told['error']}"


def rescore(output_dir: Path, name: str | None = None, given: Sequence[str] = ()) -> str:
    """Score every result whose statistics are missing or of another scorer version. Then write the tables of all
    sweeps.

    name: a sweep, whose cells alone are scored; None or `all`: every cell. given: scoring settings such as
    `task.rule=lavis`, which the sweep, or every sweep, asks for from now on; scores by other rules stay.

    Prints what it did. At the end it raises UserError or SweepFailed if some results could not be scored.
    """
    ledger = Ledger(output_dir, measured=True)
    results = ledger.refresh().results()
    if not results:
        raise UserError(f"{output_dir}: no results here; right: --output-dir of a sweep, or wait for its first cell")
    sweeps = list_sweeps(output_dir)
    outside.remember(outside_code(output_dir))
    chosen = sweeps if name in (None, ALL) else [find_sweep(output_dir, name)]
    ask_for(output_dir, chosen, jobs_of(output_dir), given)
    if name not in (None, ALL):
        results = [r for r in results if r["key"] in set(chosen[0].keys)]
    whose = sorted({name for s in sweeps if (name := owner(output_dir, s))})
    if whose:
        tell(
            f"{output_dir} has sweeps of {', '.join(whose)}: scoring reads their data as you, and runs none of their setup and back end"
        )
    scored = Rescored()
    for asked in rounds(chosen, results):
        scored.add(score_results(output_dir, [r for r in results if r["key"] in asked], asked))
    table = collect(output_dir, rescored=scored.written, ledger=ledger)
    for sweep in list_sweeps(output_dir):
        write_sweep(output_dir, table, sweep, ledger)
    if scored.failed:
        bad = {f["kind"] for f in scored.failed.values()} == {"bad_config"}
        raise (UserError if bad else SweepFailed)(f"scored {len(scored.written)} cells; {scored.why_not}")
    return f"scored {len(scored.written)} of {len(results)} cells; the others were up to date"


def score_results(
    output_dir: Path,
    results: Sequence[ResultLine],
    asked: Mapping[str, Asked | None] = BY_DEFAULT,
    minutes: float | None = None,
) -> Rescored:
    """Score the results that need it, in a process that is ended when it hangs, baselines first.

    asked: {key: how a sweep wants it scored}, of cells that are not to be scored by the default settings. minutes: as in
    ScoringProcess.
    """
    results = sorted(results, key=lambda r: r["columns"].get("baseline") != r["key"])
    jobs, process = jobs_of(output_dir), ScoringProcess(output_dir, minutes)
    _tell_code(output_dir, [jobs[r["key"]] for r in results if r["key"] in jobs])
    failed = dict[str, Failure]()
    for result in (r for r in results if r["predictions"]):
        job, name = jobs.get(result["key"]), predictions_name(result)
        if predictions_or_none(output_dir, name) is None:
            continue
        if job is not None:
            process.submit(
                job["key"], name, as_asked(job["task"], asked.get(job["key"])), job["baseline"], job.get("control")
            )
        elif not read_scores(output_dir, name)[1]:
            failed[result["key"]] = _unknown(result)
    process.close()
    failed |= dict(process.unscored())
    if failed:
        journal = Journal(output_dir)
        journal.write_many("unscored", [{"key": key, **told} for key, told in failed.items()])
        journal.close()
    return Rescored(process.written, failed)


def _tell_code(output_dir: Path, jobs: Sequence[CellJob]) -> None:
    """Print which code from outside scores cells, where the packs of another user name it."""
    code = its_code(job["task"].get("planned", {}).get("outside", {}) for job in jobs)
    whose = sorted({name for s in list_sweeps(output_dir) if (name := owner(output_dir, s))}) if code else []
    if whose:
        tell(
            f"{output_dir} has sweeps of {', '.join(whose)}: scoring runs what their packs name, as you: {', '.join(code)}"
        )


def _unknown(result: ResultLine) -> Failure:
    """Why a result is not scored: nobody knows its references any more."""
    right = "its files imported again" if "imported" in result else "the command it came from, with --rerun"
    return {"kind": "bad_config", "error": f"{NO_PACK} it, which would name its task; right: {right}", "traceback": ""}


def jobs_of(output_dir: Path) -> dict[str, CellJob]:
    """{key: what a worker was told}, from the packs of every sweep."""
    sweeps = list_sweeps(output_dir, forgotten=True)  # whose packs may have cells that other sweeps ask for
    paths = [p for s in sweeps for p in sorted((s.folder(output_dir) / "packs").glob("*.json"))]
    return {job["key"]: job for pack in whole_packs(paths) for job in pack["cells"]}
