"""Cells that are done but not scored: they have a result and no statistics. They are only scored, not computed
again."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from blip2sweep.results.committed import predictions_name
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.predictions import keys_of, read_scores
from blip2sweep.results.score_folders import predicted_names, score_folder, scored_names
from blip2sweep.results.sweeps import Sweep
from blip2sweep.tasks.settings import suffixes
from blip2sweep.wire.lines import ResultLine
from blip2sweep.wire.pack import TaskJob

NO_PACK = "no pack holds"  # part of the message about a cell that cannot be scored here


def unscored(output_dir: Path, sweep: Sweep, done: Collection[str] | None = None) -> list[ResultLine]:
    """The sweep's results that have predictions and no statistics of a variant that it wants. For a cell that was
    computed again, or that stopped and went on, the new result counts.

    done: the keys that have a result, where the caller knows them; lines of other keys are then not parsed.
    """
    wanted = _Wanted(output_dir, sweep)
    candidates = wanted.lacking | wanted.in_part
    return wanted.without(candidates if done is None else candidates.intersection(done))


class _Wanted:
    """The score files that a sweep wants, and those that there are. lacking: keys without one. in_part: keys of which
    some predictions have none, those of the result that counts or those of one that was replaced."""

    def __init__(self, output_dir: Path, sweep: Sweep) -> None:
        self._output_dir, self._keys = output_dir, sweep.wanted()
        self._names = {variant: scored_names(output_dir, variant) for variant in self._keys}
        there = {variant: keys_of(names) for variant, names in self._names.items()}
        self.lacking = {key for variant, keys in self._keys.items() for key in keys - there[variant]}
        predicted = predicted_names(output_dir)
        bare = {variant: keys_of(predicted - names) for variant, names in self._names.items()}
        self.in_part = {key for variant, keys in self._keys.items() for key in keys & bare[variant]} - self.lacking

    def without(self, keys: Collection[str]) -> list[ResultLine]:
        """The results of these keys that have predictions and lack a file. Lines of other keys are not parsed."""
        results = Ledger(self._output_dir, only=keys).refresh().results() if keys else []
        return [r for r in results if r["predictions"] and not self._has(r)]

    def _has(self, result: ResultLine) -> bool:
        """Whether there is every file that is wanted of this result, which has predictions."""
        key, name = result["key"], predictions_name(result)
        return all(name in self._names[variant] for variant, keys in self._keys.items() if key in keys)


def is_scored(output_dir: Path, name: str, task: TaskJob) -> bool:
    """Whether predictions have a score file of every variant that a job names. Raises UserError for a task whose
    scoring is not known here."""
    return all((score_folder(output_dir, variant) / f"{name}.npz").exists() for variant in suffixes(task))


def outdated(output_dir: Path, sweep: Sweep) -> list[ResultLine]:
    """The sweep's results whose statistics are broken or of earlier scorers. Score files are opened only for cells that
    today's scorers did not measure."""
    from blip2sweep.results.drops import is_current_source
    from blip2sweep.results.scored import is_todays

    ledger = Ledger(output_dir, only={*sweep.keys}, measured=True).refresh()
    results = [r for r in ledger.results() if r["predictions"]]
    names = {r["key"]: predictions_name(r) for r in results}
    measured = {k: ledger.attempts[k].measured.items() for k in names}
    up_to_date = {
        k for k, n in names.items() if any(is_current_source(s, n) and is_todays(line) for s, line in measured[k])
    }
    return [r for r in results if r["key"] not in up_to_date and not read_scores(output_dir, names[r["key"]])[1]]


def not_scored(output_dir: Path, sweep: Sweep, missing: list[ResultLine]) -> str:
    """`1 of 5 cells is done and not scored, the first is KEY (reason)`. missing: what `unscored` returned, not
    empty."""
    ledger = Ledger(output_dir, only={r["key"] for r in missing}).refresh()
    errors = [a.unscored["error"] for r in missing if (a := ledger.attempts[r["key"]]).unscored]
    many = f"{len(missing)} of {len(sweep.keys)} cells {'are' if len(missing) > 1 else 'is'} done and not scored"
    why = f" ({errors[0]})" if errors else ""
    right = "" if NO_PACK in why else f"; right: `blip2sweep retry {sweep.name}` scores them"
    return f"{many}, the first is {missing[0]['key']}{why}{right}"


def scoring(output_dir: Path, sweep: Sweep) -> str:
    """The line for following a sweep whose cells all have results and are not all scored."""
    wanted = _Wanted(output_dir, sweep)
    left = len(wanted.lacking) + len(wanted.without(wanted.in_part))
    return f"every cell is done; {left} of {len(sweep.keys)} are being scored"


def scored(output_dir: Path, sweep: Sweep) -> bool:
    """Whether every cell has the statistics that the sweep wants. They are written after the result, while the next
    cell runs. For a cell that was computed again, or that stopped and went on, the new result counts."""
    wanted = _Wanted(output_dir, sweep)
    return not wanted.lacking and not wanted.without(wanted.in_part)
