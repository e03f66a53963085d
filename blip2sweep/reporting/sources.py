"""What a report of several models is made from: a source for each, and why others have none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from blip2sweep.analysis.cells import NothingToCompare, finished, refuse_mixed
from blip2sweep.analysis.models import ACROSS, models_of
from blip2sweep.errors import UserError
from blip2sweep.reporting.source import Selection, Source, select


@dataclass(frozen=True)
class Sources:
    """The models of one selection of rows.

    models: a source each, in the order of the table. left_out: {model: why nothing of it can be compared}.
    """

    selection: Selection
    models: list[Source]
    left_out: dict[str, str]

    @property
    def several(self) -> bool:
        """Whether the rows are of several models."""
        return len(self.models) + len(self.left_out) > 1

    @property
    def names(self) -> list[str]:
        """The names of the models that have a source."""
        return [s.model for s in self.models]

    @property
    def table(self) -> pd.DataFrame:
        """Every row, of all models."""
        return self.selection.table

    @property
    def heading(self) -> str:
        """`tiny and tiny-llava on shapes_caption, 200 samples, 21 cells`."""
        if not self.several:
            return self.models[0].heading
        cells = pd.concat([s.cells for s in self.models], ignore_index=True)
        known = cells["samples"].unique().tolist() if "samples" in cells else list[float]()
        samples = f"{int(known[0])} samples, " if len(known) == 1 and pd.notna(known[0]) and known[0] else ""
        return f"{listed(self.names)} on {cells['task'].iloc[0]}, {samples}{len(cells)} cells"

    @property
    def meant(self) -> list[str]:
        """The lines for the terminal that name what the report is about."""
        first = self.models[0]
        named = first.meant[0].removesuffix(first.heading)
        left = (f"model {name} is left out: {why}" for name, why in self.left_out.items())
        return [f"{named}{self.heading}", *self.selection.notes, *left]


def load_sources(
    output_dir: Path,
    sweep: str | None = None,
    all_cells: bool = False,
    only: dict[str, str | None] | None = None,
) -> Sources:
    """The sources of all models of a sweep or of the whole ledger; arguments as of `load_source`.

    Raises UserError where nothing fits, where cells of one model cannot be compared, where models differ in dtype, task
    or back end, and where no model has anything to compare.
    """
    chosen = select(output_dir, sweep, all_cells, only)
    names = models_of(chosen.table)
    if len(names) < 2:
        return Sources(chosen, [chosen.source()], {})
    refuse_mixed(finished(chosen.table), ACROSS)
    found, left_out = list[Source](), dict[str, str]()
    for name in names:
        try:
            found.append(chosen.source(name))
        except NothingToCompare as error:
            left_out[name] = str(error)
    if not found:
        raise UserError("; ".join(f"model {name}: {why}" for name, why in left_out.items()))
    return Sources(chosen, found, left_out)


def listed(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
