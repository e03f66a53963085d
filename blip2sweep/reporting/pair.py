"""Two sweeps or two models that are put side by side: which two are meant, and whether anything of them can be compared."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from blip2sweep.analysis.models import UNKNOWN, grounds, models_of
from blip2sweep.errors import UserError, nearest
from blip2sweep.reporting.metric_text import metric_text
from blip2sweep.reporting.source import Selection, Source, select
from blip2sweep.reporting.sources import MODEL, Sources
from blip2sweep.results.planned import planned_models
from blip2sweep.results.sweeps import list_sweeps

SWEEP = "sweep"
MOST_NAMES = 2


@dataclass(frozen=True)
class Pair(Sources):
    """Two sources by the names that were typed. kind: `model` where both names are of models, else `sweep`."""

    @property
    def title(self) -> str:
        return " and ".join(self.names)

    @property
    def page(self) -> Path:
        name = "-and-".join(re.sub(r"[^\w.-]+", "_", n).strip("._")[:80] for n in self.names)
        return self.selection.output_dir / f"report-{name}.html"

    @property
    def heading(self) -> str:
        models = list(dict.fromkeys(s.model for s in self.models))
        of = f", of {models[0]}" if len(models) == 1 and self.kind != MODEL else ""
        return f"{self.title} side by side{of} on {self.models[0].cells['task'].iloc[0]}"

    @property
    def meant(self) -> list[str]:
        return [line for name, own in zip(self.names, self.models, strict=True) for line in _meant(name, own)]

    @property
    def paired(self) -> bool:
        """Whether both have one baseline, so that their cells can be compared image by image."""
        one, other = (s.cells.loc[s.cells["part"] == "none", "key"].iloc[0] for s in self.models)
        return bool(one == other)


def _meant(name: str, source: Source) -> list[str]:
    return [f"{name}: {source.heading}", *source.notes]


def load_pair(output_dir: Path, names: Sequence[str], only: dict[str, str | None]) -> Pair:
    """The sources of two names, each a sweep or, where no sweep is called so, a model of the ledger.

    only: as of `load_source`. Raises UserError, one line, for one name twice, for names that are neither, and for two of
    which nothing can be compared.
    """
    _check_names(output_dir, names)
    sweeps = [s.name for s in list_sweeps(output_dir)]
    found = [_selected(output_dir, name, name in sweeps, only) for name in names]
    sources = [_source(name, own) for name, own in zip(names, found, strict=True)]
    _check_grounds(sources)
    table = pd.concat([own.table for own in found], ignore_index=True)
    both = Selection(output_dir, None, table, [], {c: v for c, v in only.items() if v is not None})
    return Pair(both, sources, {}, MODEL if not set(names) & set(sweeps) else SWEEP)


def _check_names(output_dir: Path, names: Sequence[str]) -> None:
    given = " ".join(names)
    if len(names) > MOST_NAMES:
        raise UserError(f"report {given}: {len(names)} names; right: one sweep, or two to put them side by side")
    if len(set(names)) < len(names):
        raise UserError(f"report {given}: the same name twice; right: two sweeps or two models, or {names[0]} alone")
    known = [*(s.name for s in list_sweeps(output_dir)), *_models(output_dir)]
    if unknown := [n for n in names if n not in known]:
        what = " and ".join(f"'{n}'" for n in unknown)
        verb = "is no sweep and no model" if len(unknown) == 1 else "are no sweeps and no models"
        raise UserError(f"report {given}: {what} {verb} in {output_dir}; {nearest(unknown[0], set(known))}")


def _models(output_dir: Path) -> list[str]:
    """The models of the ledger: planned ones, and those of rows that were imported."""
    path = output_dir / "table.parquet"
    rows = models_of(pd.read_parquet(path, columns=["model"])) if path.exists() else []
    return [*planned_models(output_dir), *rows]


def _selected(output_dir: Path, name: str, is_sweep: bool, only: dict[str, str | None]) -> Selection:
    if is_sweep:
        return select(output_dir, name, False, only)
    if only.get(MODEL) not in (None, name):
        raise UserError(f"--model {only[MODEL]}: {name} is a model already; right: without --model")
    return select(output_dir, None, True, {**only, MODEL: name})


def _source(name: str, selection: Selection) -> Source:
    """The source of one name, called by it. Raises UserError where it has cells that cannot be compared."""
    try:
        return replace(selection.source(), back_end=name)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error


def _check_grounds(sources: Sequence[Source]) -> None:
    """Raises UserError for two that were scored by different metrics, or on different samples."""
    (metric, *one), (other_metric, *other) = (grounds(s.cells, s.metric) for s in sources)
    named = " and ".join(s.name for s in sources)
    if metric != other_metric:
        labels = " and ".join(metric_text(m).label for m in (metric, other_metric))
        raise UserError(
            f"report: {named} have no common metric ({labels}), so nothing can be compared; right: two of one task"
        )
    for what, a, b in zip(("numbers of samples", "samples", "pictures"), one, other, strict=True):
        if a != b and UNKNOWN not in (a, b):
            raise UserError(
                f"report: {named} were scored on different {what} ({a} and {b}), so nothing can be compared; right: two of "
                "one task and task.limit"
            )
