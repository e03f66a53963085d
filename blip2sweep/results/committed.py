"""The files that a result depends on, and whether they are still as they were written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import orjson

from blip2sweep.console.remarks import many, remark, some
from blip2sweep.files import as_noted
from blip2sweep.results.attempts import Attempts, attempt_id
from blip2sweep.results.packed import unpacked
from blip2sweep.results.record import OfTable, Record, Table
from blip2sweep.wire.lines import Note, ResultLine

MOST_STATS = 200  # up to so many files are looked up one by one; for more the folder is listed once
MOST_WHOLE = 20_000  # above this number a brief ledger checks that files exist, and does not check their size and time


def predictions_name(result: ResultLine) -> str:
    """The name of a result's predictions and statistics. An imported result may have none; asking for its name is an
    error of the caller."""
    predictions = result["predictions"]
    assert predictions is not None
    return f"{result['key']}-{predictions[:12]}"


def files_of(result: ResultLine) -> list[tuple[str, Note | None]]:
    """[(name in `predictions/`, the note of size, time and checksum from when it was written)].

    The first file is the result's own predictions. The others are its second runs: without them the cell loses its
    noise floor and nothing else.
    """
    name, files = predictions_name(result), result.get("files")
    noted = orjson.loads(files) if isinstance(files, bytes) else {} if files is None else files
    second = [(f"{name}-{k}.json", noted[k]) for k in noted if k.startswith("noise")]
    return [(f"{name}.json", noted.get("predictions")), *second]


def _files(table: Table) -> list[list[tuple[str, Note | None]]]:
    """`files_of` all results of a table."""
    files = table.columns.get("files")
    if not isinstance(files, Table) or [*files.columns] != ["predictions"]:
        return [
            files_of(cast("ResultLine", line)) if line["predictions"] else []
            for line in map(table.__getitem__, range(len(table)))
        ]
    columns = (table.columns["key"], table.columns["predictions"], files.columns["predictions"])
    told = zip(*map(unpacked, columns), strict=True)
    return [[(f"{key}-{hashed[:12]}.json", note)] if hashed else [] for key, hashed, note in told]


def discard_lost(output_dir: Path, unchecked: Sequence[tuple[Attempts, ResultLine]], brief: bool) -> None:
    """Stop counting results whose predictions are gone or cut: whoever asks for such a cell computes it again. A remark
    names them, and lost second runs too. brief: of the ledger that the results are from."""
    folder = output_dir / "predictions"
    check = FileCheck(folder, len(unchecked), brief)
    lost, second_runs, own = list[str](), list[str](), OfTable(_files)
    for attempts, result in unchecked:
        (name, note), *others = own(result) if isinstance(result, Record) else files_of(result)
        if not check.intact(name, note):
            attempts.mark_missing(attempt_id(result))
            lost.append(f"{folder}/{name}")
        elif others and attempts.result is result:
            second_runs += [f"{folder}/{n}" for n, note in others if not check.intact(n, note)]
    _remark_lost(lost, second_runs)


def _remark_lost(results: Sequence[str], second_runs: Sequence[str]) -> None:
    if results:
        remark(f"{many(len(results), 'result')} not counted: the predictions are gone or damaged ({some(results)}); "
               "right: the command they came from, which computes them again")  # fmt: skip
    if second_runs:
        remark(f"{many(len(second_runs), 'second run')} gone or damaged, with the noise floor measured by it "
               f"({some(second_runs)})")  # fmt: skip


class FileCheck:
    """Checks whether files of a folder exist and are as they were written."""

    def __init__(self, folder: Path, files: int, brief: bool) -> None:
        self.folder, self._stats = str(folder), dict[str, os.DirEntry[str]]()
        self._by_name = brief and files > MOST_WHOLE
        if files > MOST_STATS:
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                self._stats = {e.name: e for e in entries}

    def intact(self, name: str, note: Note | None) -> bool:
        """Whether a file exists and matches its note. A file that may not be read counts as intact: whoever reads it
        gets the error."""
        path, entry = f"{self.folder}/{name}", self._stats.get(name)
        if entry and self._by_name:
            return True
        try:
            stat = entry.stat() if entry else os.stat(path)  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        return as_noted(path, stat, note)
