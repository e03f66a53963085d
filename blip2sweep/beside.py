"""What is left to do with a cell that was just scored: measure it against its baseline, keep its samples for the tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from blip2sweep.ledger import Journal, Ledger
from blip2sweep.measured import EVENT, Baselines, Scored, complete, measure, source
from blip2sweep.samples import SampleWriter


class Measuring:
    """Measures scored cells as soon as their baseline is scored too, wherever that is done. What still waits at the end is
    measured when tables are made."""

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        self._journal, self._samples, self._baselines = (
            Journal(output_dir),
            SampleWriter(output_dir),
            Baselines(output_dir),
        )
        self._waiting: list[tuple[str, str]] = []
        self._results: dict[str, dict[str, Any]] = {}  # of baselines
        self._ledgers: dict[str, Ledger] = {}

    def add(self, name: str, baseline: str) -> None:
        """name: of scored predictions; baseline: the key of the cell's baseline. Raises UserError, one line, for a full disk."""
        cell = Scored(self.output_dir, name)
        self._samples.add(cell)
        if not self._measure(cell, baseline):
            self._waiting.append((name, baseline))

    def again(self) -> None:
        """See to the cells that wait for a baseline which is scored by now."""
        waiting, self._waiting = self._waiting, []
        for name, baseline in waiting:
            if self._baseline(baseline)[0] is None or not self._measure(Scored(self.output_dir, name), baseline):
                self._waiting.append((name, baseline))

    def _measure(self, cell: Scored, baseline: str) -> bool:
        base, noise = self._baseline(baseline)
        if base is None or not complete(cell, base):
            return False
        made_from = source(cell.name, self._results[baseline])
        self._journal.write(EVENT, key=cell.key, source=made_from, **measure(cell, base, noise))
        return True

    def _baseline(self, key: str) -> tuple[Scored | None, dict[str, float]]:
        """A baseline that is scored, and its noise."""
        base, noise = self._baselines(self._result(key))
        return (base, noise) if base and base.statistics else (None, {})

    def _result(self, key: str) -> dict[str, Any] | None:
        """The `result` line of a baseline. It is looked for until it is found: of all the journals' lines only its own are
        parsed."""
        if key not in self._results:
            ledger = self._ledgers.setdefault(key, Ledger(self.output_dir, only={key})).refresh()
            if not ledger.done(key):
                return None
            self._results[key] = ledger.results()[0]
        return self._results[key]

    def close(self) -> None:
        self.again()
        self._samples.flush()
        self._journal.close()
