"""What to run next: the widths that carry a fixed sequence on, as commands."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from blip2sweep.analysis.cells import headline
from blip2sweep.analysis.dropoff import MARGIN, dropoff, extending, lowest_safe
from blip2sweep.analysis.knapsack import FEWEST_CELLS
from blip2sweep.analysis.recipes import Entry, entries, has_width, overrides_of, part_names
from blip2sweep.errors import UserError
from blip2sweep.metrics import METRICS, fewest_images
from blip2sweep.reporting.figures import RUN
from blip2sweep.reporting.rerun import context
from blip2sweep.reporting.source import Source

FIRST = "quant.bits=2,3,4,6,8"


@dataclass(frozen=True)
class Step:
    """Cells to run. parts: sets of parts, each to be compressed by itself; command: None where the table does not tell it."""

    setting: str
    parts: tuple[str, ...]
    widths: tuple[int, ...]
    why: str
    command: str | None


def _first(source: Source) -> tuple[str, ...]:
    """Every part by itself and all together, where nothing was run yet that says which widths matter."""
    return (f"part={','.join(part_names(source.cells))},all", FIRST)


@dataclass(frozen=True)
class _Line:
    setting: str
    parts: str
    widths: tuple[int, ...]
    why: str
    seeds: str  # of calibration
    words: tuple[str, ...]  # of the command, but for `part=` and the widths
    listed: Sequence[Entry]
    row: dict[Any, Any]


def next_steps(source: Source, curves: pd.DataFrame | None = None) -> list[Step]:
    """Steps that carry on the fixed sequence of each line of the headline, those that fill a gap first.

    curves: `dropoff` of the headline, where it is at hand.
    """
    if curves is None:
        curves = dropoff(headline(source.cells), source.metric, source.draws)
    if curves.empty:
        command = _command(source, _first(source), [], _base(source))
        return [Step("", (), (), "no whole part was run at one width yet", command)]
    alike: dict[tuple[Any, ...], list[_Line]] = {}
    for line in _lines(source, curves):
        alike.setdefault((line.setting, line.widths, line.why, line.words, line.seeds), []).append(line)
    steps = [_step(source, lines) for lines in alike.values()] + _more_images(curves)
    return sorted(steps, key=lambda s: (s.why.endswith("still safe"), -len(s.parts)))


def _more_images(curves: pd.DataFrame) -> list[Step]:
    """Where there are so few images that no width can be called safe, more of them."""
    images, needed = curves["images"].min(), fewest_images(MARGIN)
    return (
        [Step("", (), (), f"the same cells on at least {needed} images (task.limit)", None)] if images < needed else []
    )


def _base(source: Source) -> dict[Any, Any]:
    return source.cells[source.cells["part"] == "none"].iloc[0].to_dict()


def _lines(source: Source, curves: pd.DataFrame) -> Iterator[_Line]:
    cells = source.cells
    for r in extending(lowest_safe(curves)).to_dict("records"):
        own = cells[(cells["setting"] == r["setting"]) & (cells["line"] == r["line"])]
        row = own.iloc[0].to_dict()
        seeds = sorted(own["seed"].dropna().astype(int).unique())
        told = ",".join(map(str, seeds))  # a line has points for all of them
        row |= {"calibration_seed": told} if told else {}
        listed = entries(row["recipe_json"])
        words, widths = overrides_of(listed), tuple(w for w in r["widths"] if has_width(listed, w))
        if words and widths:
            yield _Line(r["setting"], r["parts"], widths, r["why"], told, tuple(words[1:]), listed, row)


def _step(source: Source, lines: Sequence[_Line]) -> Step:
    first, parts = lines[0], tuple(sorted((x.parts for x in lines), key=lambda p: (p.count("+"), p)))
    words = [f"part={','.join(parts)}", *first.words, f"quant.bits={','.join(map(str, first.widths))}"]
    command = _command(source, words, [x.listed for x in lines], first.row)
    return Step(first.setting, parts, first.widths, first.why, command)


def _command(
    source: Source, words: Sequence[str], recipes: Sequence[Sequence[Entry]], row: dict[Any, Any]
) -> str | None:
    try:
        return f"{RUN} {shlex.join([*context(source, recipes, row), *words])}"
    except UserError:
        return None


def suggest_command(source: Source) -> str | None:
    """The verb that picks cells for the predictor, where it has cells enough."""
    most = source.cells.loc[source.cells["part"] != "none", "setting"].value_counts().max()
    if not most >= FEWEST_CELLS or not METRICS[source.metric].higher_is_better:
        return None
    return f"blip2sweep suggest {shlex.join([*source.selection, '--output-dir', str(source.output_dir)])}"
