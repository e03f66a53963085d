"""Measures a cell right after it was scored: its metrics and drops go into the ledger, its samples into a part of
samples.parquet."""

from __future__ import annotations

import time
from pathlib import Path

from blip2sweep.results.drops import EVENT, Baseline, Baselines, complete, existing_second_runs, measure, source
from blip2sweep.results.ledger import Journal, Ledger
from blip2sweep.results.sample_questions import Questions
from blip2sweep.results.samples import SampleWriter
from blip2sweep.results.scored import Scored
from blip2sweep.wire.lines import ResultLine

LOOK_SECONDS = 5.0  # between two searches for a missing baseline, each of which reads every journal


class DropWriter:
    """Measures each scored cell as soon as its baseline is scored too, in whatever process that happens. A cell that
    still waits at the end, and a cell that cannot be read or written now, is measured when tables are made."""

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        self._journal, self._samples = Journal(output_dir), SampleWriter(output_dir)
        self._baselines = Baselines(output_dir, waiting=True)
        # (name of predictions, keys of the baseline and of the control)
        self._waiting: list[tuple[str, str, str | None]] = []
        self._results: dict[str, ResultLine] = {}  # {key: result line} of baselines and controls
        self._ledgers: dict[str, Ledger] = {}
        self._looked: dict[str, float] = {}  # {key: when the last search failed}

    def add(
        self, name: str, baseline: str, control: str | None = None, questions: Questions | None = None
    ) -> None:  # fmt: skip
        """Measure the scored predictions `name` now, or once `baseline` and `control`, keys, are scored. questions: of its
        task. Raises UserError, one line, for a full disk."""
        cell = Scored(self.output_dir, name)
        if not self._measure(cell, baseline, control):
            self._waiting.append((name, baseline, control))
        self._samples.add(cell, questions)

    def retry_waiting(self, now: bool = False) -> None:
        """Measure the waiting cells whose baseline is scored by now. now: search for baselines even when the last
        search was less than LOOK_SECONDS ago. Raises the first error after all cells were tried."""
        if now:
            self._looked.clear()
        there = {key: self._baseline(key) for key in {key for _, *keys in self._waiting for key in keys if key}}
        waiting, self._waiting = self._waiting, []
        failed: Exception | None = None
        for name, key, control in waiting:
            if there[key] is None or (control and there[control] is None):
                self._waiting.append((name, key, control))
                continue
            try:
                self._measure(Scored(self.output_dir, name), key, control)
            except Exception as error:  # raised after the other cells; making tables meets it again
                failed = failed or error
        if failed:
            raise failed

    def _measure(self, cell: Scored, key: str, control: str | None) -> bool:
        """Write the cell's `measured` line. False when its scores, its baseline's or its control's are not complete.

        key: of the baseline.
        """
        base, other = self._baseline(key), self._baseline(control) if control else None
        if base is None or (control and other is None) or not complete(cell, base, other):
            return False
        runs = existing_second_runs(self.output_dir, cell.name)
        read = {c.name: c.variants for c in (base.cell, cell, *([other.cell] if other else []))}
        of_control = self._results[control] if control else None
        made_from = source(cell.name, runs, self._results[key], read.__getitem__, of_control)
        self._journal.write(EVENT, key=cell.key, source=made_from, **measure(cell, base, other))
        return True

    def _baseline(self, key: str) -> Baseline | None:
        """The baseline of this key; None when it is not scored yet."""
        if time.monotonic() - self._looked.get(key, -1e9) < LOOK_SECONDS:
            return None
        base = self._baselines(self._result(key))
        if base and base.current:
            return base
        self._looked[key] = time.monotonic()
        return None

    def _result(self, key: str) -> ResultLine | None:
        """The `result` line of a baseline, searched for until it is found. Only lines with that key are parsed."""
        if key not in self._results:
            ledger = self._ledgers.setdefault(key, Ledger(self.output_dir, only={key})).refresh()
            if not ledger.done(key):
                return None
            self._results[key] = ledger.results()[0]
        return self._results[key]

    def close(self) -> None:
        """Measure what still can be measured, and write the remaining samples."""
        try:
            self.retry_waiting(now=True)
        finally:
            self._samples.flush()
            self._journal.close()
