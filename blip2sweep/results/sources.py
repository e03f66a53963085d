"""What the measurement of a result has to be made from, as the ledger is now: its baseline, its control, and the name of
all that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from blip2sweep.results import drops
from blip2sweep.results.committed import predictions_name
from blip2sweep.results.ledger import Ledger
from blip2sweep.wire.lines import ResultLine


class Sources:
    """Gives the `drops.source` of results, each found once. variants: from `listed_variants`."""

    def __init__(self, ledger: Ledger, variants: Mapping[str, Sequence[str]]) -> None:
        self._ledger, self._variants = ledger, variants
        self._known: dict[str, str] = {}
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
        if not result["predictions"]:  # imported scores may come without outputs
            return ""
        name, second_runs, columns = predictions_name(result), drops.recorded_second_runs(result), result["columns"]
        if not (second_runs or self._variants or columns.get("control")):  # the usual case
            return name + self._tail(columns["baseline"])
        own = baseline_of(result, self._ledger), control_of(result, self._ledger)
        return drops.source(name, second_runs, own[0], lambda n: self._variants.get(n, ()), own[1])

    def _tail(self, baseline: str) -> str:
        if baseline not in self._tails:
            attempts = self._ledger.attempts.get(baseline)
            self._tails[baseline] = drops.source("", {}, attempts.result if attempts else None, lambda _: ())
        return self._tails[baseline]


def baseline_of(result: ResultLine, ledger: Ledger) -> ResultLine | None:
    """The `result` line of a result's baseline; None when the baseline is not done."""
    attempts = ledger.attempts.get(result["columns"]["baseline"])
    return attempts.result if attempts else None


def control_of(result: ResultLine, ledger: Ledger) -> ResultLine | None:
    """The `result` line of a result's control; None for a cell without one, and when the control is not done."""
    attempts = ledger.attempts.get(result["columns"].get("control", ""))
    return attempts.result if attempts else None
