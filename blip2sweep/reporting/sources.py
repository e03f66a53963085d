"""What a report of several models is made from: a source for each, and why others have none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from blip2sweep.analysis.cells import NothingToCompare, finished, refuse_mixed
from blip2sweep.analysis.models import ACROSS, models_of
from blip2sweep.errors import UserError
from blip2sweep.reporting.back_ends import UNKNOWN, back_end_names
from blip2sweep.reporting.source import Selection, Source, select

MODEL, BACK_END = "model", "back end"


@dataclass(frozen=True)
class Sources:
    """The models of one selection of rows, or the back ends of one model.

    models: a source each, in the order of the table. left_out: {model or back end: why nothing of it can be compared}.
    kind: `model` or `back end`, whichever there may be several of.
    """

    selection: Selection
    models: list[Source]
    left_out: dict[str, str]
    kind: str = MODEL

    @property
    def several(self) -> bool:
        """Whether the rows are of several models or back ends."""
        return len(self.models) + len(self.left_out) > 1

    @property
    def names(self) -> list[str]:
        """The names of those that have a source."""
        return [s.name for s in self.models]

    @property
    def title(self) -> str:
        """What the page is called."""
        return self.selection.title

    @property
    def page(self) -> Path:
        """Where its page is written by default."""
        return self.selection.folder / "report.html"

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
        named = listed(self.names) if self.kind == MODEL else f"{self.models[0].model} in {listed(self.names)}"
        return f"{named} on {cells['task'].iloc[0]}, {samples}{len(cells)} cells"

    @property
    def meant(self) -> list[str]:
        """The lines for the terminal that name what the report is about."""
        first = self.models[0]
        named = first.meant[0].removesuffix(first.heading)
        left = (f"{self.kind} {name} is left out: {why}" for name, why in self.left_out.items())
        return [f"{named}{self.heading}", *self.notes, *left]

    @property
    def notes(self) -> list[str]:
        """The notes of the selection, and those of each model behind its name where there are several."""
        common = self.selection.notes
        own = [(s.name, n) for s in self.models for n in s.notes if n not in common]
        return [*common, *(f"{name}: {note}" if self.several else note for name, note in own)]


def load_sources(
    output_dir: Path,
    sweep: str | None = None,
    all_cells: bool = False,
    only: dict[str, str | None] | None = None,
) -> Sources:
    """The sources of all models of a sweep or of the whole ledger; arguments as of `load_source`.

    Several back ends of one model are a source each, since a drop is each back end's own. Raises UserError where nothing
    fits, where cells of one model cannot be compared, where models differ in dtype, task
    or back end, and where no model has anything to compare.
    """
    chosen = select(output_dir, sweep, all_cells, only)
    names, back_ends = models_of(chosen.table), _back_ends(chosen.table)
    if len(names) < 2 and len(back_ends) < 2:
        return Sources(chosen, [chosen.source()], {})
    across = ACROSS if len(names) > 1 else [c for c in ACROSS if c != "backend"]
    chosen = chosen.agreeing(across)
    refuse_mixed(finished(chosen.table), across)
    names, back_ends = models_of(chosen.table), _back_ends(chosen.table)
    if len(names) < 2 and len(back_ends) < 2:
        return Sources(chosen, [chosen.source()], {})
    if len(names) < 2:
        return _sources(chosen, back_ends, chosen.of_back_end, BACK_END)
    return _sources(chosen, names, chosen.source, MODEL)


def _back_ends(table: pd.DataFrame) -> list[str]:
    """The back ends of the finished rows, in the order in which they come first. Imported scores are no back end."""
    done = finished(table)
    return [name for name in dict.fromkeys(back_end_names(done)) if name != UNKNOWN] if "backend" in done else []


def _sources(chosen: Selection, names: list[str], source: Callable[[str], Source], kind: str) -> Sources:
    found, left_out = list[Source](), dict[str, str]()
    for name in names:
        try:
            found.append(source(name))
        except NothingToCompare as error:
            left_out[name] = str(error)
    if not found:
        raise UserError("; ".join(f"{kind} {name}: {why}" for name, why in left_out.items()))
    return Sources(chosen, found, left_out, kind)


def listed(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
