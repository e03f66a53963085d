"""What to run next: the widths that continue a fixed sequence, as commands."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from blip2sweep.analysis.cell_row import Row
from blip2sweep.analysis.cells import headline, quantized
from blip2sweep.analysis.dropoff import MARGIN, dropoff, extending, lowest_safe
from blip2sweep.analysis.knapsack import FEWEST_CELLS
from blip2sweep.analysis.recipes import Entry, entries, has_width, overrides_of, part_names
from blip2sweep.errors import UserError
from blip2sweep.metrics import METRICS, fewest_images
from blip2sweep.reporting.figure import RUN
from blip2sweep.reporting.rerun import context
from blip2sweep.reporting.source import Source

FIRST = "quant.bits=2,3,4,6,8"


@dataclass(frozen=True)
class Step:
    """Cells to run.

    parts: sets of parts, each to be compressed by itself; command: None where the table does not tell it.
    """

    setting: str
    parts: tuple[str, ...]
    widths: tuple[int, ...]
    why: str
    command: str | None


def _first(source: Source) -> tuple[str, ...]:
    """The overrides for a first look: every part by itself, and all together."""
    return (f"part={','.join(part_names(source.cells))},all", FIRST)


@dataclass(frozen=True)
class _Curve:
    setting: str
    parts: str
    widths: tuple[int, ...]
    why: str
    seeds: str  # of calibration
    overrides: tuple[str, ...]  # of the command, without `part=` and the widths
    recipe: Sequence[Entry]
    row: Row


def next_steps(source: Source, curves: pd.DataFrame | None = None) -> list[Step]:
    """The steps that continue the fixed sequence of each curve of the headline; those that fill a gap come first.

    curves: `dropoff` of the headline, computed where it is not given.
    """
    if curves is None:
        curves = dropoff(headline(source.cells), source.metric, source.draws)
    if curves.empty:
        command = _command(source, _first(source), [], _base(source))
        return [Step("", (), (), "no whole part was run at one width yet", command)]
    alike: dict[tuple[object, ...], list[_Curve]] = {}
    for curve in _curves(source, curves):
        place = (curve.setting, curve.widths, curve.why, curve.overrides, curve.seeds)
        alike.setdefault(place, []).append(curve)
    steps = [_step(source, same) for same in alike.values()] + _more_images(curves)
    return sorted(steps, key=lambda s: (s.why.endswith("still safe"), -len(s.parts)))


def _more_images(curves: pd.DataFrame) -> list[Step]:
    """A step that asks for more images, where there are too few to call any width safe."""
    images, needed = curves["images"].min(), fewest_images(MARGIN)
    return (
        [Step("", (), (), f"the same cells on at least {needed} images (task.limit)", None)] if images < needed else []
    )


def _base(source: Source) -> Row:
    return source.cells[source.cells["part"] == "none"].iloc[0].to_dict()


def _curves(source: Source, curves: pd.DataFrame) -> Iterator[_Curve]:
    cells = source.cells
    for r in extending(lowest_safe(curves)).to_dict("records"):
        own = cells[(cells["setting"] == r["setting"]) & (cells["line"] == r["line"])]
        row = own.iloc[0].to_dict()
        seeds = sorted(own["seed"].dropna().astype(int).unique())
        all_seeds = ",".join(map(str, seeds))  # a curve has points of all of them
        row |= {"calibration_seed": all_seeds} if all_seeds else {}
        recipe = entries(row["recipe_json"])
        overrides, widths = overrides_of(recipe), tuple(w for w in r["widths"] if has_width(recipe, w))
        if overrides and widths:
            yield _Curve(r["setting"], r["parts"], widths, r["why"], all_seeds, tuple(overrides[1:]), recipe, row)


def _step(source: Source, curves: Sequence[_Curve]) -> Step:
    first, parts = curves[0], tuple(sorted((x.parts for x in curves), key=lambda p: (p.count("+"), p)))
    overrides = [f"part={','.join(parts)}", *first.overrides, f"quant.bits={','.join(map(str, first.widths))}"]
    command = _command(source, overrides, [x.recipe for x in curves], first.row)
    return Step(first.setting, parts, first.widths, first.why, command)


def _command(source: Source, overrides: Sequence[str], recipes: Sequence[Sequence[Entry]], row: Row) -> str | None:
    try:
        return f"{RUN} {shlex.join([*context(source, recipes, row), *overrides])}"
    except UserError:
        return None


def suggest_command(source: Source) -> str | None:
    """The command of `blip2sweep suggest`; None where there are too few cells to fit a predictor."""
    cells = quantized(source.cells)
    most = cells.loc[cells["part"] != "none", "setting"].value_counts().max()
    if not most >= FEWEST_CELLS or not METRICS[source.metric].higher_is_better:
        return None
    return f"blip2sweep suggest {shlex.join([*source.selection, '--output-dir', str(source.output_dir)])}"
