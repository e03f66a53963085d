"""Done but not scored: cells with a result and no statistics. Nothing is computed again for them, only scored."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from blip2sweep.results.committed import predictions_name
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.predictions import key_of, read_scores, scored_names
from blip2sweep.results.sweeps import Sweep
from blip2sweep.wire.lines import ResultLine

NO_PACK = "no pack holds"  # in what is told of a cell that nothing here can score


def unscored(output_dir: Path, sweep: Sweep, done: Collection[str] | None = None) -> list[ResultLine]:
    """The sweep's results that have predictions and no statistics; of what was computed again the new result counts.
    done: the keys that have a result, where that is known: of all others nothing is read."""
    names = scored_names(output_dir)
    open_ = ({*sweep.keys} - set(map(key_of, names))) | {*sweep.rerun}.intersection(sweep.keys)
    if done is not None:
        open_ &= {*done}
    if not open_:
        return []
    results = Ledger(output_dir, only=open_).refresh().results()
    return [r for r in results if r["predictions"] and predictions_name(r) not in names]


def outdated(output_dir: Path, sweep: Sweep) -> list[ResultLine]:
    """The sweep's results whose statistics are of earlier scorers, or broken. Only of those that nobody measured with today's
    scorers a file is opened."""
    from blip2sweep.results.drops import made_now

    ledger = Ledger(output_dir, only={*sweep.keys}, measured=True).refresh()
    results = [r for r in ledger.results() if r["predictions"]]
    names = {r["key"]: predictions_name(r) for r in results}
    known = {k for k, n in names.items() if any(made_now(s, n) for s in ledger.attempts[k].measured)}
    return [r for r in results if r["key"] not in known and not read_scores(output_dir, names[r["key"]])[1]]


def not_scored(output_dir: Path, sweep: Sweep, missing: list[ResultLine]) -> str:
    """`1 of 5 cells is done and not scored, the first is KEY (why)`. missing: of `unscored`, at least one."""
    ledger = Ledger(output_dir, only={r["key"] for r in missing}).refresh()
    told = [a.unscored["error"] for r in missing if (a := ledger.attempts[r["key"]]).unscored]
    many = f"{len(missing)} of {len(sweep.keys)} cells {'are' if len(missing) > 1 else 'is'} done and not scored"
    why = f" ({told[0]})" if told else ""
    right = "" if NO_PACK in why else f"; right: `blip2sweep retry {sweep.name}` scores them"
    return f"{many}, the first is {missing[0]['key']}{why}{right}"


def scoring(output_dir: Path, sweep: Sweep) -> str:
    """What a follower waits for when every cell has a result."""
    left = len({*sweep.keys} - set(map(key_of, scored_names(output_dir))))
    return f"every cell is done; {left} of {len(sweep.keys)} are being scored"


def scored(output_dir: Path, sweep: Sweep) -> bool:
    """Whether every cell has its statistics: they are written beside the next cell's work, after the result. Of what was
    computed again those of the new result count."""
    names = scored_names(output_dir)
    if not set(map(key_of, names)).issuperset(sweep.keys):
        return False
    again = Ledger(output_dir, only=sweep.rerun).refresh().results() if sweep.rerun else []
    return names.issuperset(predictions_name(r) for r in again if r["predictions"])
