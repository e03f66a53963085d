"""What the measurement of a result has to be made from, as the ledger is now: its baseline, its control, and the name of
all that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from blip2sweep.results import drops
from blip2sweep.results.committed import predictions_name
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.packed import Same, unpacked
from blip2sweep.results.predictions import stem
from blip2sweep.results.record import OfTable, Record, Table
from blip2sweep.wire.lines import ResultLine


class Sources:
    """Gives the `drops.source` of results, each found once. variants: from `listed_variants`."""

    def __init__(self, ledger: Ledger, variants: Mapping[str, Sequence[str]]) -> None:
        self._ledger, self._variants = ledger, variants
        self._known: dict[str, str] = {}
        self._usual = OfTable(_usual)
        self._tails: dict[str, str] = {}  # {key of a baseline: what it adds to the name of a result's predictions}

    def __call__(self, result: ResultLine) -> str:
        """The source of a result that counts. Empty for a result without predictions."""
        key = result["key"]
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._found(result)
        return found

    def forget(self) -> None:
        """Find all of them again: another result counts now."""
        self._known, self._tails = {}, {}

    def _found(self, result: ResultLine) -> str:
        usual = self._usual(result) if isinstance(result, Record) and not self._variants else None
        if usual is not None:
            return usual[0] + self._tail(usual[1])
        if not result["predictions"]:  # imported scores may come without outputs
            return ""
        name, second_runs = predictions_name(result), drops.recorded_second_runs(result)
        own = baseline_of(result, self._ledger), control_of(result, self._ledger)
        return drops.source(name, second_runs, own[0], lambda n: self._variants.get(n, ()), own[1])

    def _tail(self, baseline: str) -> str:
        if baseline not in self._tails:
            attempts = self._ledger.attempts.get(baseline)
            self._tails[baseline] = drops.source("", {}, attempts.result if attempts else None, lambda _: ())
        return self._tails[baseline]


def _usual(table: Table) -> Sequence[tuple[str, str] | None]:
    """(name of the predictions, key of the baseline) of the results of a table; None of one that has no predictions, a
    control or second runs."""
    nothing, own = Same(None, len(table)), table.columns["columns"]
    files = table.columns.get("files", Table({}, len(table)))
    if not isinstance(own, Table) or "baseline" not in own.columns or not isinstance(files, Table):
        return [None] * len(table)
    if drops.has_second_runs(files.columns):
        return [None] * len(table)
    columns = (
        table.columns["key"],
        table.columns["predictions"],
        own.columns["baseline"],
        own.columns.get("control", nothing),
    )
    told = zip(*map(unpacked, columns), strict=True)
    return [(stem(key, hashed), base) if hashed and not control else None for key, hashed, base, control in told]


def baseline_of(result: ResultLine, ledger: Ledger) -> ResultLine | None:
    """The `result` line of a result's baseline; None when the baseline is not done."""
    attempts = ledger.attempts.get(result["columns"]["baseline"])
    return attempts.result if attempts else None


def control_of(result: ResultLine, ledger: Ledger) -> ResultLine | None:
    """The `result` line of a result's control; None for a cell without one, and when the control is not done."""
    attempts = ledger.attempts.get(result["columns"].get("control", ""))
    return attempts.result if attempts else None
