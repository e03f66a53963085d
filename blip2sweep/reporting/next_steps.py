"""What to run next: the widths that continue a fixed sequence and that the ledger has not, as commands."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from blip2sweep.analysis.cell_row import Row
from blip2sweep.analysis.cells import headline, quantized
from blip2sweep.analysis.dropoff import CURVE, MARGIN, SEQUENCE, dropoff, extending, lowest_safe
from blip2sweep.analysis.knapsack import FEWEST_CELLS
from blip2sweep.analysis.recipes import Entry, entries, has_width, overrides_of, part_names
from blip2sweep.errors import UserError
from blip2sweep.metrics import METRICS, fewest_images
from blip2sweep.reporting.figure import RUN
from blip2sweep.reporting.rerun import context
from blip2sweep.reporting.source import Source

FIRST = "quant.bits=2,3,4,6,8"
Place = tuple[str, str, float, int | None]  # setting, line, width and calibration seed of a cell


@dataclass(frozen=True)
class Step:
    """Cells to run.

    parts: sets of parts, each to be compressed by itself; command: None where the table does not tell it; where the ledger
    has all cells, the one that shows them. cells: how many are asked for, 0 where that is not known; there: how many
    of them the ledger has from other sweeps. images: the fewest that can show a width to be safe, where those of the
    ledger cannot; else 0.
    """

    setting: str
    parts: tuple[str, ...]
    widths: tuple[int, ...]
    why: str
    command: str | None
    cells: int = 0
    there: int = 0
    images: int = 0

    @property
    def known(self) -> bool:
        """Whether other sweeps ran all of its cells."""
        return 0 < self.cells == self.there


def _first(source: Source) -> tuple[str, ...]:
    """The overrides for a first look: every part by itself, and all together."""
    return (f"part={','.join(part_names(source.cells))},all", FIRST)


@dataclass(frozen=True)
class _Curve:
    setting: str
    parts: str
    widths: tuple[int, ...]
    why: str
    line: str
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
    images, needed = curves["images"].max(), fewest_images(MARGIN)  # fewer where cells stopped
    if images < needed:
        return _on_more_images(source, lowest_safe(curves), int(images), needed)
    found, known = _curves(source, extending(lowest_safe(curves))), measured_places(source)
    steps = [_step(source, same, known) for same in _alike(found)]
    return sorted(steps, key=lambda s: (s.known, s.why.endswith("still safe"), -len(s.parts)))


def _alike(curves: Iterator[_Curve]) -> list[list[_Curve]]:
    """The curves that one command carries on."""
    alike: dict[tuple[object, ...], list[_Curve]] = {}
    for curve in curves:
        place = (curve.setting, curve.widths, curve.why, curve.overrides, curve.seeds)
        alike.setdefault(place, []).append(curve)
    return list(alike.values())


def _on_more_images(source: Source, safe: pd.DataFrame, images: int, needed: int) -> list[Step]:
    """The same cells, and the widths that carry them on, on enough images to call a width safe: on fewer, no further
    width could say more."""
    more = {tuple(r[c] for c in CURVE): r["widths"] for r in extending(safe).to_dict("records")}
    run = headline(source.cells).groupby(CURVE)["width"].agg(set)
    rows = list[Row]()
    for r in safe.to_dict("records"):
        place = tuple(r[c] for c in CURVE)
        widths = [w for w in SEQUENCE if w in {*run.get(place, set()), *more.get(place, [])}]
        rows.append({**r, "widths": widths, "why": f"{images} images can show no width to be safe"})
    found = _curves(source, pd.DataFrame(rows))
    steps = [replace(_step(source, same, set(), needed), images=needed) for same in _alike(found)]
    cells = source.cells["setting"].value_counts()
    return sorted(
        steps, key=lambda s: (-int(cells[s.setting]), -max(p.count("+") for p in s.parts), -len(s.parts))
    ) or [Step("", (), (), f"the same cells on at least {needed} images (task.limit)", None)]


def measured_places(source: Source) -> set[Place]:
    """Where the ledger has a cell that can be compared with these, whichever sweep ran it."""
    try:
        cells = source.measured_cells
    except UserError:  # the ledger has what cannot be compared
        cells = source.cells
    return {_place(r["setting"], r["line"], r["width"], r["seed"]) for r in quantized(cells).to_dict("records")}


def _place(setting: object, line: object, width: float, seed: float | None) -> Place:
    return str(setting), str(line), float(width), None if seed is None or pd.isna(seed) else int(seed)


def _base(source: Source) -> Row:
    return source.cells[source.cells["part"] == "none"].iloc[0].to_dict()


def _curves(source: Source, asked: pd.DataFrame) -> Iterator[_Curve]:
    """asked: as `extending` gives it."""
    cells = source.cells
    for r in asked.to_dict("records"):
        own = cells[(cells["setting"] == r["setting"]) & (cells["line"] == r["line"])]
        row = own.iloc[0].to_dict()
        seeds = sorted(own["seed"].dropna().astype(int).unique())
        all_seeds = ",".join(map(str, seeds))  # a curve has points of all of them
        row |= {"calibration_seed": all_seeds} if all_seeds else {}
        recipe = entries(row["recipe_json"])
        overrides, widths = overrides_of(recipe), tuple(w for w in r["widths"] if has_width(recipe, w))
        if overrides and widths:
            yield _Curve(
                r["setting"], r["parts"], widths, r["why"], r["line"], all_seeds, tuple(overrides[1:]), recipe, row
            )


def _asked(curve: _Curve) -> list[Place]:
    """The cells that a curve's command asks for."""
    seeds = [int(s) for s in curve.seeds.split(",")] if curve.seeds else [None]
    return [_place(curve.setting, curve.line, w, seed) for w in curve.widths for seed in seeds]


def _step(source: Source, curves: Sequence[_Curve], known: set[Place], images: int = 0) -> Step:
    """images: how many to run on, where these are too few; else 0."""
    asked = [place for curve in curves for place in _asked(curve)]
    first, parts = curves[0], tuple(sorted((x.parts for x in curves), key=lambda p: (p.count("+"), p)))
    overrides = [f"part={','.join(parts)}", *first.overrides, f"quant.bits={','.join(map(str, first.widths))}"]
    command = _command(source, overrides, [x.recipe for x in curves], first.row, images)
    there = sum(p in known for p in asked)
    command = _show_all(source) if there == len(asked) else command
    return Step(first.setting, parts, first.widths, first.why, command, len(asked), there)


def _show_all(source: Source) -> str:
    """The command of a page with the cells of all sweeps."""
    return f"blip2sweep report {shlex.join(['--all', *source.selection[1:], '--output-dir', str(source.output_dir)])}"


def _command(
    source: Source, overrides: Sequence[str], recipes: Sequence[Sequence[Entry]], row: Row, images: int = 0
) -> str | None:
    try:
        words = context(source, recipes, row)
    except UserError:
        return None
    if images:
        words = [*(w for w in words if not w.startswith("task.limit=")), f"task.limit={images}"]
    return f"{RUN} {shlex.join([*words, *overrides])}"


def suggest_command(source: Source) -> str | None:
    """The command of `blip2sweep suggest`; None where there are too few cells to fit a predictor."""
    cells = quantized(source.cells)
    most = cells.loc[cells["part"] != "none", "setting"].value_counts().max()
    if not most >= FEWEST_CELLS or not METRICS[source.metric].higher_is_better:
        return None
    return f"blip2sweep suggest {shlex.join([*source.selection, '--output-dir', str(source.output_dir)])}"
