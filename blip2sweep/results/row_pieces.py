"""The pieces of a table's rows: places in the tables of the ledger's lines, seen under the names of the table's columns.

What a piece is named is found once for all lines of one shape. What few rows have is made row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from blip2sweep.recipe.part_bits import RoleColumns, width_columns
from blip2sweep.results import drop_columns
from blip2sweep.results.packed import Column, Same
from blip2sweep.results.record import Record, Table, Tables
from blip2sweep.wire.lines import FailureLine, MeasuredLine, ResultLine

TORCH = "torch"  # the back end of results that name none
BACKEND, WHOLE = (Record(Table({name: Same(value, 1)}, 1), 0) for name, value in (("backend", TORCH), ("stopped", "")))
PLAIN = ("layers_changed", "threads", "cpu", "cpu_capability", "versions", "attention", "image_processor", "code",
         "predictions", "host", "job")  # fmt: skip


class Pieces:
    """Makes the pieces of rows from lines."""

    def __init__(self, with_roles: RoleColumns) -> None:
        self._with_roles, self._made = with_roles, Tables()
        self._views: dict[tuple[int, object], tuple[Table, Table]] = {}  # {(its id, what is seen): (table, view)}
        self._names: dict[int, tuple[Table, tuple[str, ...], list[str]]] = {}  # {its id: (table, names, widths)}

    def of(self, values: Mapping[str, object]) -> Record:
        """A piece of these columns."""
        return values if isinstance(values, Record) else self._made.add(values)

    def pack(self) -> None:
        """Pack the pieces that were made. Call it when all are."""
        self._made.pack()

    def identity(self, line: ResultLine | FailureLine) -> list[Record]:
        """The identity columns with those of roles. Lines name the back end only when it is not torch. The back end of
        imported rows is unknown."""
        own = self.of(cast("Mapping[str, object]", line["columns"]))
        known = self._names.get(id(own.table))
        if known is None:
            known = self._names[id(own.table)] = own.table, tuple(own), width_columns(own)
        layout = self._with_roles.layout(own, *known[1:])
        roles = self.of(self._with_roles.roles(own, layout))
        found = [self._only(own, layout.before), roles, self._only(own, layout.behind)]
        return found if "imported" in line or "backend" in own else [*found, BACKEND]

    def _only(self, record: Record, names: tuple[str, ...]) -> Record:
        """The record with some of its columns."""
        columns = record.table.columns
        return self._seen(record, names, lambda: {n: columns[n] for n in names})

    def _seen(self, record: Record, what: object, view: Callable[[], dict[str, Column]]) -> Record:
        """The record under other names. what: tells the views of its table apart."""
        place = id(record.table), what
        known = self._views.get(place)
        if known is None:
            known = self._views[place] = record.table, Table(view(), len(record.table))
        return Record(known[1], record.place)

    def measured(self, line: MeasuredLine) -> Record:
        """The columns that a measurement fills."""
        if isinstance(line, Record) and drop_columns.is_even(line.table):
            table = line.table
            return self._seen(line, "measured", lambda: drop_columns.of_table(table))
        return self.of(drop_columns.columns(line))

    def beside(self, line: MeasuredLine) -> Record:
        """The metrics of the cell of torch beside one of another back end, as `torch_<metric>`."""
        return self.of({f"{TORCH}_{m}": values[0] for m, values in line["metrics"].items()})

    def run(self, result: ResultLine) -> list[Record]:
        """The columns of cost and provenance."""
        own = self.of(cast("Mapping[str, object]", result))
        cost = self.of(result.get("cost", {}))
        return [cost, self._seen(own, "run", lambda: _run(own.table))]


def _run(table: Table) -> dict[str, Column]:
    """The columns of provenance of a table of results; None where a line says nothing of one."""
    nothing = Same(None, len(table))
    return {n: table.columns.get(n, nothing) for n in PLAIN} | {"finished": table.columns["time"]}
