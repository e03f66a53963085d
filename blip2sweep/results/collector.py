"""The first step of making tables: measures the cells that were never measured, and writes the samples that no part
holds."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path
from typing import cast

from blip2sweep.console.remarks import remark
from blip2sweep.errors import UserError
from blip2sweep.results.committed import predictions_name
from blip2sweep.results.drops import EVENT, Baseline, Baselines, complete, lacks_retained, measure
from blip2sweep.results.ledger import Journal, Ledger
from blip2sweep.results.packed import unpacked
from blip2sweep.results.predictions import installed_for, read_variants
from blip2sweep.results.record import OfTable, Record, Table
from blip2sweep.results.sample_parts import DAMAGED
from blip2sweep.results.sample_questions import PlannedQuestions
from blip2sweep.results.samples import SampleWriter, contents, entry_name
from blip2sweep.results.score_folders import listed_variants
from blip2sweep.results.scored import Scored, is_todays
from blip2sweep.results.sources import Sources, baseline_of, control_of
from blip2sweep.results.table_files import State
from blip2sweep.wire.lines import MeasuredLine, ResultLine
from blip2sweep.wire.pack import JsonObject

INSTALLED = ("installed", "baseline_installed", "control_installed")  # fields of versions
LINES = 1000  # lines that one fsync makes durable


class Collector:
    """Measures cells and writes their samples, where that was not done yet.

    entries: {key: the name under which a part of samples.parquet holds the cell's samples that count}. sources: of
    measurements, by the variants that cells were scored by when this began.
    """

    def __init__(self, output_dir: Path, ledger: Ledger, rescored: Collection[str]) -> None:
        self.output_dir, self.ledger, self.rescored = output_dir, ledger, set(rescored)
        self.entries: dict[str, str] = {}
        self._contents, self.sources = contents(output_dir), Sources(ledger, listed_variants(output_dir))
        self._journal, self._samples = Journal(output_dir), SampleWriter(output_dir)
        self._baselines, self._questions = Baselines(output_dir, waiting=False), PlannedQuestions(output_dir)
        self._lines: list[JsonObject] = []
        self._is_sure = OfTable(_are_sure)
        self._damaged: set[str] = set()

    def all(self) -> None:
        """See to every result that has predictions. Start again when a baseline turned out to be damaged, because its
        cells are then measured without one."""
        # Samples of a cell whose predictions are gone, or that is forgotten, are removed. They come back with a result.
        gone = (key for key, a in self.ledger.attempts.items() if (a.missing or a.hidden) and not a.result)
        self.entries |= dict.fromkeys(gone, DAMAGED)
        before = -1
        while before < len(self._damaged):
            before = len(self._damaged)
            for result in [r for r in self.ledger.results() if r["predictions"]]:
                self(result)

    def __call__(self, result: ResultLine) -> None:
        """Measure one result that has predictions, and write its samples, where needed. The ledger then holds the
        measurement."""
        source = self.sources(result)
        if self._is_there(result["key"], source):
            return
        name = predictions_name(result)
        measured = self.ledger.attempts[result["key"]].measured
        generation = 1 + measured[source].get("generation", 0) if source in measured else 0
        read = (result["key"], result["columns"]["baseline"], result["columns"].get("control", ""))
        if self.rescored and not self.rescored.isdisjoint(read):
            measured.pop(source, None)
        if source in measured and (
            lacks_retained(measured[source]) or self._scored_otherwise(result, measured[source])
        ):
            measured.pop(source)
        if source in measured:
            self.entries[result["key"]] = entry_name(name, measured[source]["scored"])
            if is_todays(measured[source]) and self.entries[result["key"]] in self._contents:
                return
        cell = self._read(result)
        if cell is None:
            return
        self.entries[cell.key] = entry_name(name, cell.scored)
        if self.entries[cell.key] not in self._contents:
            self._samples.add(cell, self._questions(str(result["columns"].get("like") or cell.key)))
        if source not in measured or measured[source]["scored"] != cell.scored:
            self._measure(cell, result, measured, generation)

    def _is_there(self, key: str, source: str) -> bool:
        """Whether there is nothing to do for a result, in the usual case: nothing was scored again, and what was measured
        depends on nothing that is installed. Its samples are then noted."""
        line: object = self.ledger.attempts[key].measured.get(source)
        if self.rescored or not isinstance(line, Record) or not self._is_sure(line):
            return False
        entry = self.entries[key] = entry_name(source.partition(" ")[0], str(line["scored"]))
        return entry in self._contents

    def _scored_otherwise(self, result: ResultLine, line: MeasuredLine) -> bool:
        """Whether a cell or its baseline was scored since with another version of what is installed beside this package.
        Score files are opened only where a score depends on that."""
        told = (line.get("installed", {}), line.get("baseline_installed", {}), line.get("control_installed", {}))
        if not any(told):
            return False
        read = (result, baseline_of(result, self.ledger), control_of(result, self.ledger))
        now = (self._installed(r) for r in read)
        return told != tuple(now)

    def _installed(self, result: ResultLine | None) -> dict[str, str]:
        if result is None or not result["predictions"]:
            return {}
        return installed_for(read_variants(self.output_dir, predictions_name(result)).values())

    def _read(self, result: ResultLine) -> Scored | None:
        """The scored cell. None when its predictions are damaged or cannot be read; the cell then has no row."""
        try:
            return Scored(self.output_dir, predictions_name(result))
        except UserError as error:
            self._discard(result, error)
            return None

    def _discard(self, result: ResultLine, error: UserError) -> None:
        """Name a result whose predictions are damaged, and stop counting it."""
        remark(str(error))
        self._damaged.add(result["key"])
        self.ledger.discard(result)
        self.sources.forget()
        self.entries[result["key"]] = DAMAGED

    def _compared_with(self, line: ResultLine | None) -> Baseline | None:
        """The baseline or control of a result, from its line. None where its predictions are damaged, for this result and
        all that follow."""
        try:
            return self._baselines(line)
        except UserError as error:
            assert line is not None
            self._discard(line, error)
            return None

    def _measure(self, cell: Scored, result: ResultLine, measured: dict[str, MeasuredLine], generation: int) -> None:
        base = self._compared_with(baseline_of(result, self.ledger))
        control = self._compared_with(control_of(result, self.ledger))
        source = self.sources(result)  # read after the baseline, which may have turned out to be damaged
        told = measure(cell, base, control)
        line = {"time": time.time(), "key": cell.key, "source": source, "generation": generation, **told}
        measured[source] = cast("MeasuredLine", line)
        if complete(cell, base, control):
            self._lines.append(line)
        if len(self._lines) >= LINES:
            self._write()

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        if lines:
            self._journal.write_many(EVENT, lines)

    def close(self) -> State:
        """Write what is left. Returns {name: bytes} of the journal that this process wrote, empty when it wrote
        none."""
        self._write()
        self._journal.close()
        self._samples.flush()
        path = self._journal.path
        return {path.name: path.stat().st_size} if path.exists() else {}


def _are_sure(table: Table) -> list[bool]:
    """Of each measurement of a table, whether it is of today's scorers, says what is retained, and depends on nothing that
    is installed."""
    names = table.columns.keys()
    if not names.isdisjoint(INSTALLED) or ("images" in names and "retained" not in names):
        return [False] * len(table)
    known: dict[object, bool] = {}
    scored = unpacked(table.columns["scored"]) if isinstance(table.columns["metrics"], Table) else range(len(table))
    for place, by in enumerate(scored):
        if by not in known:
            known[by] = is_todays(cast("MeasuredLine", table[place]))
    return [known[by] for by in scored]
