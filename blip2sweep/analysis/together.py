"""Steps together and alone: where the sum of single drops misleads.

What a cell loses is compared with the sum of what its pieces lose alone. The pieces are single blocks that are dropped,
or the parts whose blocks are dropped, or the steps (dropping, sparsity, quantization).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from blip2sweep.analysis.bands import percentile
from blip2sweep.analysis.cell_row import Row, number
from blip2sweep.analysis.cells import one_seed
from blip2sweep.analysis.common_images import lost_on_common, resampled_on_common
from blip2sweep.analysis.draws import Draws
from blip2sweep.analysis.recipes import Entry, calibrates, entries
from blip2sweep.analysis.steps import DROP, SPARSITY, dropped_blocks, of_kind
from blip2sweep.analysis.stopped import of_verdicts
from blip2sweep.compression.step import QUANTIZE
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.recipe.compact import kind_of

BLOCKS, PARTS, STEPS = "blocks", "parts", "steps"
ADDED = (DROP, SPARSITY, QUANTIZE)  # a recovery is no damage, so it adds to nothing
COLUMNS = ["by", "key", "what", "pieces", "n", "together", "sum", "excess", "low", "high", "misleads"]
Gone = frozenset[tuple[str, int]]  # (part, block)


@dataclass(frozen=True)
class _Cell:
    """gone: the dropped blocks. lost: their layers. layers: {kind: {layer: its spec}} of the steps on
    layers that are left."""

    row: Row
    recipe: list[Entry]
    gone: Gone
    lost: frozenset[str]
    layers: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return str(self.row["key"])

    @property
    def kinds(self) -> set[str]:
        return {kind_of(e) for e in self.recipe}

    def measured_on(self, kind: str) -> str:
        """The samples that a step was calibrated on, in words; '' where it calibrates nothing."""
        return str(self.row["calibrated_on"]) if any(map(calibrates, of_kind(self.recipe, kind))) else ""


def together(cells: pd.DataFrame, metric: str, draws: Draws | None, anatomy: Anatomy) -> pd.DataFrame:
    """One row for each cell of several pieces that were all run alone: `by, key, what, pieces, n, together, sum, excess,
    low, high, misleads`.

    by: what the pieces are (*blocks*, *parts* or *steps*). pieces: in words, the keys being left out. together: the
    cell's drop; sum: of the drops of its n pieces, all on the images that they share where one of them stopped; excess: together − sum, with the 95 % percentile interval of the
    shared resamples. misleads: whether the interval leaves out 0; None where there is none. A step on layers is the
    same piece where it does the same to the layers that are left, calibrated on the same samples. Cells that are
    recovered, or stopped with a verdict, are left out. Of cells that differ in the calibration seed alone the one of the lowest seed has a row.
    """
    cells = cells[~of_verdicts(cells)]
    known = [_cell(row, anatomy) for row in cells.to_dict("records")]
    known = [c for c in known if c.recipe and c.kinds <= set(ADDED)]
    chosen = set(one_seed(cells)["key"])
    rows = []
    for cell in (c for c in known if c.key in chosen):
        for by, pieces in _pieces(cell, known):
            rows.append({"by": by, **_compared(cell, pieces, metric, draws)})
    return pd.DataFrame(rows, columns=COLUMNS)


def _cell(row: Mapping[Hashable, object], anatomy: Anatomy) -> _Cell:
    recipe = entries(str(row["recipe_json"]))
    gone = frozenset((p, b) for p, blocks in dropped_blocks(recipe, anatomy).items() for b in blocks)
    layers: dict[str, dict[str, str]] = {}
    for entry in (e for e in recipe if kind_of(e) in (SPARSITY, QUANTIZE)):
        spec = str(sorted((k, v) for k, v in entry.items() if k != "target"))
        layers.setdefault(kind_of(entry), {}).update((path, spec) for path in _paths(str(entry["target"]), anatomy))
    lost = (x.path for name, p in anatomy.parts.items() for x in p.linears if (name, x.block) in gone)
    missing = frozenset(lost)
    left = {kind: {path: spec for path, spec in own.items() if path not in missing} for kind, own in layers.items()}
    return _Cell(row, recipe, gone, missing, left)


def _paths(target: str, anatomy: Anatomy) -> Iterator[str]:
    name, blocks, layers = target.split(":")
    linears = anatomy.parts[name.partition(".")[0]].linears
    yield from (x.path for x, hit in zip(linears, anatomy.mask(name, blocks, layers), strict=True) if hit)


def _pieces(cell: _Cell, known: Sequence[_Cell]) -> Iterator[tuple[str, list[_Cell]]]:
    """(what the pieces are, the cells of the pieces) of each way to take a cell apart whose pieces were all run."""
    dropping = {c.gone: c for c in known if c.kinds == {DROP}}
    ways: list[tuple[str, list[_Cell | None]]] = []
    if cell.kinds == {DROP}:
        parts = {p for p, _ in cell.gone}
        ways = [
            (BLOCKS, [dropping.get(frozenset([one])) for one in sorted(cell.gone)]),
            (PARTS, [dropping.get(frozenset(x for x in cell.gone if x[0] == p)) for p in sorted(parts)]),
        ]
    else:
        alone = [_alone(cell, kind, known) for kind in ADDED if kind in cell.kinds and kind != DROP]
        ways = [(STEPS, [*([dropping.get(cell.gone)] if cell.gone else []), *alone])]
    for by, found in ways:
        pieces = [c for c in found if c is not None]
        if len(pieces) == len(found) > 1:
            yield by, pieces


def _alone(cell: _Cell, kind: str, known: Sequence[_Cell]) -> _Cell | None:
    """The cell that does one step of another alone, on the same samples, to the same layers as far as these are left."""
    wanted, on = cell.layers[kind], cell.measured_on(kind)
    for other in (c for c in known if c.kinds == {kind} and c.measured_on(kind) == on):
        if {path: spec for path, spec in other.layers[kind].items() if path not in cell.lost} == wanted:
            return other
    return None


def _compared(cell: _Cell, pieces: Sequence[_Cell], metric: str, draws: Draws | None) -> dict[str, object]:
    column, keys = f"drop_{metric}", [cell.key, *(c.key for c in pieces)]
    lost = [number(c.row, column) for c in (cell, *pieces)]
    low = high = np.nan
    if draws is not None and all(k in draws for k in keys):
        if draws.seen.keys() & {*keys}:
            found = lost_on_common(draws, keys)
            lost, draws = [found[k] for k in keys], resampled_on_common(draws, keys)
        sampled = draws.drop(cell.key) - draws.drops([c.key for c in pieces]).sum(axis=0)
        low, high = (float(end[0]) for end in percentile(sampled[None]))
    whole, total = lost[0], sum(lost[1:])
    return {
        "key": cell.key, "what": cell.row["what"], "pieces": "; ".join(str(c.row["what"]) for c in pieces),
        "n": len(pieces), "together": whole, "sum": total, "excess": whole - total, "low": low, "high": high,
        "misleads": None if np.isnan(low) else not low <= 0 <= high,
    }  # fmt: skip
