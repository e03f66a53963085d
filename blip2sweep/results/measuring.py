"""What is left to do with a cell that was just scored: measure it against its baseline, keep its samples for the tables."""

from __future__ import annotations

import time
from pathlib import Path

from blip2sweep.results.drops import EVENT, Baseline, Baselines, Scored, complete, measure, seconds_there, source
from blip2sweep.results.ledger import Journal, Ledger
from blip2sweep.results.samples import SampleWriter
from blip2sweep.wire.lines import ResultLine

LOOK_SECONDS = 5.0  # for a baseline that is not there; each look is one at every journal


class Measuring:
    """Measures scored cells as soon as their baseline is scored too, wherever that is done. What still waits at the end, and
    what cannot be read or written now, is measured when tables are made."""

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        self._journal, self._samples = Journal(output_dir), SampleWriter(output_dir)
        self._baselines = Baselines(output_dir, waiting=True)
        self._waiting: list[tuple[str, str]] = []
        self._results: dict[str, ResultLine] = {}  # of baselines
        self._ledgers: dict[str, Ledger] = {}
        self._looked: dict[str, float] = {}  # in vain, and when

    def add(self, name: str, baseline: str) -> None:
        """name: of scored predictions; baseline: the key of the cell's baseline. Raises UserError, one line, for a full disk."""
        cell = Scored(self.output_dir, name)
        if not self._measure(cell, baseline, self._baseline(baseline)):
            self._waiting.append((name, baseline))
        self._samples.add(cell)

    def again(self, now: bool = False) -> None:
        """See to the cells that wait for a baseline which is scored by now. now: look for it, however short ago that was."""
        if now:
            self._looked.clear()
        bases = {key: self._baseline(key) for key in {baseline for _, baseline in self._waiting}}
        waiting, self._waiting = self._waiting, []
        failed: Exception | None = None
        for name, key in waiting:
            if bases[key] is None:
                self._waiting.append((name, key))
                continue
            try:
                self._measure(Scored(self.output_dir, name), key, bases[key])
            except Exception as error:  # told when the others are done; makers of tables meet it again
                failed = failed or error
        if failed:
            raise failed

    def _measure(self, cell: Scored, key: str, base: Baseline | None) -> bool:
        if base is None or not complete(cell, base):
            return False
        made_from = source(cell.name, seconds_there(self.output_dir, cell.name), self._results[key])
        self._journal.write(EVENT, key=cell.key, source=made_from, **measure(cell, base))
        return True

    def _baseline(self, key: str) -> Baseline | None:
        """A baseline that is scored."""
        if time.monotonic() - self._looked.get(key, -1e9) < LOOK_SECONDS:
            return None
        base = self._baselines(self._result(key))
        if base and base.current:
            return base
        self._looked[key] = time.monotonic()
        return None

    def _result(self, key: str) -> ResultLine | None:
        """The `result` line of a baseline. It is looked for until it is found: of all the journals' lines only its own are
        parsed."""
        if key not in self._results:
            ledger = self._ledgers.setdefault(key, Ledger(self.output_dir, only={key})).refresh()
            if not ledger.done(key):
                return None
            self._results[key] = ledger.results()[0]
        return self._results[key]

    def close(self) -> None:
        try:
            self.again(now=True)
        finally:
            self._samples.flush()
            self._journal.close()
