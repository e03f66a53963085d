"""The pieces of a table's rows: places in the tables of the ledger's lines, seen under the names of the table's columns.

What a piece is named is found once for all lines of one shape. What few rows have is made row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

from blip2sweep.recipe.part_bits import Layout, RoleColumns, width_columns
from blip2sweep.results import drop_columns
from blip2sweep.results.packed import Column, Same, unpacked
from blip2sweep.results.record import Adding, OfTable, Record, Table, Tables
from blip2sweep.wire.lines import FailureLine, MeasuredLine, ResultLine

TORCH = "torch"  # the back end of results that name none
BACKEND = "backend"
WHOLE = Record(Table({"stopped": Same("", 1)}, 1), 0)  # of a cell that has seen all images
WHERE = ("layers_changed", "threads", "cpu", "cpu_capability", "versions", "attention", "image_processor", "code",
         "predictions", "host", "job")  # fmt: skip
RARE = {"published", "imported", "stopped"}  # fields of results whose rows have more
Fields = Mapping[str, object]
Columns = dict[str, Column]
View = Callable[[Table], Columns | None]


class Usual(NamedTuple):
    """Of the results of a table: the pieces of identity and of cost, how many other starts each names (-1: it is not
    said), and `beside`. All by place."""

    identity: list[Record]
    run: Table
    others: list[int]
    beside: list[object]


class Pieces:
    """Makes the pieces of rows from lines. head, told: make those of these columns from their values."""

    def __init__(self, with_roles: RoleColumns) -> None:
        self._with_roles, self._made = with_roles, Tables()
        self._layouts = OfTable(self._layouts_of)
        self.head, self.told = Adding("key", "status"), Adding("attempts", "stale")
        self._usual: dict[int, tuple[Table, Usual | None]] = {}  # {id of a table: (it, what rows take of it)}
        self._views: dict[tuple[int, object], tuple[Table, Table | None]] = {}  # {(id of a table, view): (it, as seen)}

    def of(self, values: Mapping[str, object]) -> Record:
        """A piece of these columns."""
        return values if isinstance(values, Record) else self._made.add(values)

    def pack(self) -> None:
        """Pack the pieces that were made. Call it when all are."""
        for made in (self._made, self.head, self.told):
            made.pack()

    def usual(self, result: ResultLine) -> Usual | None:
        """What the rows of all results of its table take of them. None where it is found row by row."""
        if not isinstance(result, Record):
            return None
        known = self._usual.get(id(result.table))
        if known is None:
            known = self._usual[id(result.table)] = result.table, self._usual_of(result.table)
        return known[1]

    def _usual_of(self, table: Table) -> Usual | None:
        own, run = table.columns["columns"], _run(table)
        if not isinstance(own, Table) or run is None or not RARE.isdisjoint(table.columns):
            return None
        layouts = self._layouts_of(own)
        if any(layout.parts for layout in layouts):
            return None
        named = BACKEND in own.columns
        views = {id(layout): layout for layout in layouts}
        seen = {i: Table(_identity(own, layout, named), len(own)) for i, layout in views.items()}
        identity = [Record(seen[id(layout)], place) for place, layout in enumerate(layouts)]
        nothing = Same(None, len(table))
        starts, beside = table.columns.get("starts", nothing), own.columns.get("beside", nothing)
        others = [-1 if v is None else len(v) for v in unpacked(starts)]
        return Usual(identity, Table(run, len(table)), others, unpacked(beside))

    def identity(self, line: ResultLine | FailureLine) -> list[Record]:
        """The identity columns with those of roles. Lines name the back end only when it is not torch. The back end of
        imported rows is unknown."""
        columns = cast("Fields", line["columns"])
        named = "imported" in line or BACKEND in columns
        if not isinstance(columns, Record):
            names = tuple(columns)
            own, layout = self.of(columns), self._with_roles.layout(columns, names, width_columns(names))
        else:
            own, layout = columns, self._layouts(columns)
        if layout.parts:
            joined = self._with_roles.joined(own, layout)
            return [self.of(joined if named else {**joined, BACKEND: TORCH})]
        return [cast("Record", self._seen(own, (id(layout), named), lambda table: _identity(table, layout, named)))]

    def _layouts_of(self, table: Table) -> list[Layout]:
        names = tuple(table.columns)
        widths = [unpacked(table.columns[w]) for w in width_columns(names)]
        return self._with_roles.layouts(names, widths, unpacked(table.columns.get("recipe", Same(None, len(table)))))

    def measured(self, line: MeasuredLine) -> Record:
        """The columns that a measurement fills."""
        seen = self._seen(line, "measured", drop_columns.of_table) if isinstance(line, Record) else None
        return self.of(drop_columns.columns(line)) if seen is None else seen

    def beside(self, line: MeasuredLine) -> Record:
        """The metrics of the cell of torch beside one of another back end, as `torch_<metric>`."""
        return self.of({f"{TORCH}_{m}": values[0] for m, values in line["metrics"].items()})

    def run(self, result: ResultLine) -> Record:
        """The columns of cost and provenance."""
        own = self.of(cast("Fields", result))
        seen = self._seen(own, "run", _run)
        if seen is not None:
            return seen
        where = {name: result.get(name) for name in WHERE}
        return self.of({**result.get("cost", {}), **where, "finished": result["time"]})

    def _seen(self, record: Record, what: object, view: View) -> Record | None:
        """The record under other names; None where its table has no such view. what: tells the views apart."""
        place = id(record.table), what
        known = self._views.get(place)
        if known is None:
            columns = view(record.table)
            table = None if columns is None else Table(columns, len(record.table))
            known = self._views[place] = record.table, table
        return None if known[1] is None else Record(known[1], record.place)


def _identity(table: Table, layout: Layout, named: bool) -> Columns:
    nothing = Same(None, len(table))
    roles = {name: table.columns[name] if name in layout.given else nothing for name in layout.roles}
    before, behind = ({name: table.columns[name] for name in names} for names in (layout.before, layout.behind))
    return before | roles | behind | ({} if named else {BACKEND: Same(TORCH, len(table))})


def _run(table: Table) -> Columns | None:
    """None where costs have several shapes. What a line does not say is None."""
    nothing, cost = Same(None, len(table)), table.columns.get("cost", Table({}, len(table)))
    if not isinstance(cost, Table):
        return None
    where = {name: table.columns.get(name, nothing) for name in WHERE}
    return {**cost.columns, **where, "finished": table.columns["time"]}
