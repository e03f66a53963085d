"""What makers of tables do first: measure what nobody measured, and write samples that no part holds."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path
from typing import cast

from blip2sweep.console.remarks import remark
from blip2sweep.errors import UserError
from blip2sweep.results.committed import predictions_name
from blip2sweep.results.drops import EVENT, Baseline, Baselines, Scored, complete, measure
from blip2sweep.results.ledger import Journal, Ledger
from blip2sweep.results.sample_parts import DAMAGED
from blip2sweep.results.samples import SampleWriter, held, held_as
from blip2sweep.results.table import baseline_of, source_of
from blip2sweep.results.table_files import State
from blip2sweep.wire.lines import MeasuredLine, ResultLine
from blip2sweep.wire.pack import JsonObject

LINES = 1000  # that are made durable together


class Collector:
    """Measures what nobody measured, and writes samples that no part holds. counting: {key: how a part names the cell}."""

    def __init__(self, output_dir: Path, ledger: Ledger, anew: Collection[str]) -> None:
        self.output_dir, self.ledger, self.anew = output_dir, ledger, set(anew)
        self.counting: dict[str, str] = {}
        self._held = held(output_dir)
        self._journal, self._samples = Journal(output_dir), SampleWriter(output_dir)
        self._baselines = Baselines(output_dir, waiting=False)
        self._lines: list[JsonObject] = []
        self._damaged: set[str] = set()

    def all(self) -> None:
        """See to every result that has predictions; again where a baseline turned out to be damaged, for its cells are then
        measured without one."""
        # Samples of cells whose predictions are gone do not stay: they come back with a new result.
        self.counting |= {key: DAMAGED for key, a in self.ledger.attempts.items() if a.gone and not a.result}
        before = -1
        while before < len(self._damaged):
            before = len(self._damaged)
            for result in [r for r in self.ledger.results() if r["predictions"]]:
                self(result)

    def __call__(self, result: ResultLine) -> None:
        """See to one result that has predictions; the ledger at hand then holds what was measured."""
        name, source = predictions_name(result), source_of(result, self.ledger)
        measured = self.ledger.attempts[result["key"]].measured
        generation = 1 + measured[source].get("generation", 0) if source in measured else 0
        if self.anew and not self.anew.isdisjoint((result["key"], result["columns"]["baseline"])):
            measured.pop(source, None)
        if source in measured:
            self.counting[result["key"]] = held_as(name, measured[source]["scored"])
            if self.counting[result["key"]] in self._held:
                return
        cell = self._read(result)
        if cell is None:
            return
        self.counting[cell.key] = held_as(name, cell.scored)
        if self.counting[cell.key] not in self._held:
            self._samples.add(cell)
        if source not in measured or measured[source]["scored"] != cell.scored:
            self._measure(cell, result, measured, generation)

    def _read(self, result: ResultLine) -> Scored | None:
        """None where the predictions turn out to be damaged, or cannot be read: the cell is then no row."""
        try:
            return Scored(self.output_dir, predictions_name(result))
        except UserError as error:
            self._drop(result, error)
            return None

    def _drop(self, result: ResultLine, error: UserError) -> None:
        remark(str(error))
        self._damaged.add(result["key"])
        self.ledger.drop(result)
        self.counting[result["key"]] = DAMAGED

    def _baseline(self, result: ResultLine) -> Baseline | None:
        """A result's baseline; where its predictions are damaged there is none, for all that come after either."""
        given = baseline_of(result, self.ledger)
        try:
            return self._baselines(given)
        except UserError as error:
            assert given is not None
            self._drop(given, error)
            return None

    def _measure(self, cell: Scored, result: ResultLine, measured: dict[str, MeasuredLine], generation: int) -> None:
        base = self._baseline(result)
        source = source_of(result, self.ledger)  # after the baseline was read
        written = time.time()
        line = {"time": written, "key": cell.key, "source": source, "generation": generation, **measure(cell, base)}
        measured[source] = cast("MeasuredLine", line)
        if complete(cell, base):
            self._lines.append(line)
        if len(self._lines) >= LINES:
            self._write()

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        if lines:
            self._journal.write_many(EVENT, lines)

    def close(self) -> State:
        """The journal that this wrote, if any."""
        self._write()
        self._journal.close()
        self._samples.flush()
        path = self._journal.path
        return {path.name: path.stat().st_size} if path.exists() else {}
