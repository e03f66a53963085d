"""The price tables of a report: what a step of one part loses, saves and costs, what was not run, what comes next."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from blip2sweep.analysis.cell_row import Row, number
from blip2sweep.analysis.cells import comparable
from blip2sweep.analysis.draws import Draws, load_draws
from blip2sweep.analysis.grid import FREE
from blip2sweep.analysis.main_metric import main_metric
from blip2sweep.analysis.models import models_of, of_model
from blip2sweep.analysis.prices import ALONE, HERE, LADDER, prices, states
from blip2sweep.analysis.recipes import entries, overrides_of
from blip2sweep.analysis.stopped import level_text
from blip2sweep.console.printing import one_line
from blip2sweep.errors import UserError
from blip2sweep.recipe.setting import part_of
from blip2sweep.reporting.metric_text import MetricText, metric_text
from blip2sweep.reporting.narrower import bits, narrower
from blip2sweep.reporting.price_table import PriceTable, Sizes, sizes_of
from blip2sweep.reporting.rerun import context
from blip2sweep.reporting.sections import model_parts
from blip2sweep.reporting.source import Source

RUN = "python -m blip2sweep -m"


def price_tables(
    source: Source,
    found: pd.DataFrame,
    cells: pd.DataFrame | None = None,
    most: int | None = None,
    named: str | None = None,
    limit: float | None = None,
) -> list[PriceTable]:
    """The price tables of the first `most` settings, or of all.

    found: as `analysis.prices` gives it for `cells`, which are those of the source where they are not given. named: the
    key of the only cell from which a next step is advised; any where it is not given. limit: the share of the baseline
    that a next step may lose.
    """
    cells = source.cells if cells is None else cells
    rows = found[found["kind"].isin([HERE, ALONE])]
    groups = list(rows.groupby("setting", sort=False))[:most]
    return [_table(source, cells, own, named, limit) for _, own in groups]


def _table(
    source: Source, cells: pd.DataFrame, own: pd.DataFrame, named: str | None, limit: float | None
) -> PriceTable:
    metric, sizes, run = metric_text(source.metric), sizes_of(cells), own[own["key"].notna()]
    here, setting = own[own["kind"] == HERE], str(own["setting"].iloc[0])
    alone = (run["kind"] == ALONE).any()
    where = (
        "each part alone, the others in full precision"
        if alone
        else f"at {recipe_at(cells, str(here['beside'].iloc[0]))}"
    )
    head = (
        "part",
        "bits",
        f"{metric.label} {'lost' if metric.higher_is_better else 'risen'} [{level_text(cells[cells['key'].isin([*run['key'], *run['beside']])])}]",
        "saved",
        f"per {sizes(sizes.per)}",
    )
    rows = [_row(r, sizes) for r in run.to_dict("records")]
    advice = advice_from(source, cells, here, named, limit)
    if alone and advice:
        advice = f"at {recipe_at(cells, str(here['beside'].iloc[0]))}: {advice}"
    title = f"what the next bits cost with {setting}, {where}"
    return PriceTable(title, head, rows, list(_missing(source, cells, here[here["key"].isna()])), advice)


def advice_from(
    source: Source, cells: pd.DataFrame, here: pd.DataFrame, named: str | None, limit: float | None = None
) -> str:
    """What to narrow next from the recipe of these steps; empty where another one was named."""
    if here.empty or (named is not None and here["beside"].iloc[0] != named):
        return ""
    base = float(cells.loc[cells["part"] == "none", source.metric].iloc[0])
    return narrower(here, base, metric_text(source.metric), sizes_of(cells), limit)


def _row(row: Row, sizes: Sizes) -> tuple[str, ...]:
    """The texts of one step. A wider step shows what it wins back and how much larger it is, both negative."""
    sign = -1 if row["step"] == "wider" else 1
    now, to, lost, saved = (number(row, c) for c in ("now", "to", "lost", "saved_bytes"))
    ends = sorted((sign * number(row, "low"), sign * number(row, "high")))
    bars = "" if math.isnan(ends[0]) else f" [{_signed(ends[0])}, {_signed(ends[1])}]"
    return (str(row["part"]), f"{bits(now)} → {bits(to)}", f"{_signed(sign * lost)}{bars}",
            sizes(sign * saved).replace("-", "−"), price_of(row, sizes))  # fmt: skip


def price_of(row: Row, sizes: Sizes) -> str:
    """The price of a step: `0.097`, or `no loss known, within ±0.012` where it is not significant."""
    low, high, price = (number(row, c) for c in ("low", "high", "price"))
    if low <= 0 <= high:
        return f"no loss known, within ±{max(abs(low), abs(high)):.3f}"
    return "" if math.isnan(price) else _signed(price * sizes.per)


def recipe_at(cells: pd.DataFrame, key: str) -> str:
    """`vision 4, connector 8 and language 4 bits (cell 1f0c…)`."""
    row = cells[cells["key"] == key].iloc[0]
    widths = _widths(row["recipe_json"])
    listed = " and ".join(", ".join(f"{p} {bits(w)}" for p, w in widths.items()).rsplit(", ", 1))
    return f"{listed} bits (cell {key})" if widths else f"full precision (cell {key})"


def _widths(recipe_json: str) -> dict[str, float]:
    """{part: width in bits} of a recipe of whole parts."""
    return {part_of(e): float(e["bits"]) for e in entries(str(recipe_json))}


def _signed(value: float) -> str:
    return f"{value + 0.0:.3f}".replace("-0.000", "0.000").replace("-", "−")


# ---- cells that were not run


def _missing(source: Source, cells: pd.DataFrame, absent: pd.DataFrame) -> Iterator[tuple[str, str | None]]:
    """For each part what was not run, in both directions, and the command that runs it."""
    for part, own in absent.groupby("part", sort=False):
        row, to = own.iloc[0], list(own["to"])
        numbers = " and ".join(bits(w) for w in to if w != FREE)
        words = [*([f"{numbers} bits"] if numbers else []), *(bits(w) for w in to if w == FREE)]
        step = f"{part} {bits(row['now'])} → {' and '.join(words)}"
        yield step, _command(source, cells, str(row["setting"]), str(row["beside"]), str(part), to)


def _command(
    source: Source, cells: pd.DataFrame, setting: str, beside: str, part: str, to: Sequence[float]
) -> str | None:
    """The command that runs the neighbours of the cell `beside` in one part; None where the rows do not determine it.

    to: the widths of that part in the neighbours.
    """
    whole = {s.key for found in states(cells, source.metric) if found.setting == setting for s in found.known.values()}
    own = cells[cells["key"].isin(whole) & (cells["part"] != "none")]
    like = max(own.to_dict("records"), key=lambda r: str(r["parts"]).count("+"))
    overrides, parts = overrides_of(entries(str(like["recipe_json"]))), str(like["parts"]).split("+")
    widths = _widths(cells.loc[cells["key"] == beside, "recipe_json"].iloc[0])
    asked = {p: bits(w) for p, w in widths.items()} | {part: ",".join(map(bits, to))}
    if overrides is None or not set(asked) <= set(parts):
        return None
    ordered = [p for p in parts if p in asked]
    others = [w for w in overrides[1:] if not w.startswith("per_part.") or w.split(".")[1] in asked]
    wanted = [f"part={'+'.join(ordered)}", *others, *(f"per_part.{p}.bits={asked[p]}" for p in ordered)]
    try:
        return f"{RUN} {shlex.join([*context(source, [entries(str(like['recipe_json']))], like), *wanted])}"
    except UserError:
        return None


# ---- the ladder


def ladder_sentence(found: pd.DataFrame, setting: str, sizes: Sizes, metric: MetricText) -> str:
    """The ladder of one setting as a sentence without a full stop; empty where there is no ladder."""
    own = found[(found["kind"] == LADDER) & (found["setting"] == setting)]
    if own.empty:
        return ""
    steps = " → ".join(f"{r['part']} {bits(r['to'])}" for r in own.to_dict("records"))
    last = own.iloc[-1]
    return (
        f"the ladder from full precision with {setting}, of the cells that were run the least {metric.worse} for its size first: {steps} bits "
        f"({sizes(last['model_bytes'])}, {metric.label} {last['value']:.3f})"
    )


def terminal_prices(output_dir: Path, table: pd.DataFrame, command: str) -> list[str]:
    """The lines for the terminal after a sweep, of each model by itself; none where cells of a model are of several
    kinds or have no steps to price."""
    names = models_of(table)
    if len(names) < 2:
        return _prices_of(output_dir, table, command)
    lines = list[str]()
    for name in names:
        own = _prices_of(output_dir, of_model(table, name, model_parts(output_dir, name)), command)
        lines += [f"{one_line(name)}: {own[0]}", *own[1:]] if own else []
    return lines


def _prices_of(output_dir: Path, table: pd.DataFrame, command: str) -> list[str]:
    try:
        cells = comparable(table)
    except UserError:
        return []
    metric = main_metric(cells)
    assert metric is not None
    try:
        found = prices(cells, metric, lambda keys: _draws(output_dir, cells, metric, keys))
    except (OSError, UserError):  # outputs that somebody moved or damaged: the table stands without them
        return []
    settings = list(dict.fromkeys(found["setting"]))
    first = found[found["setting"].isin(settings[:1])]
    lines = price_lines(Source(output_dir, "", output_dir, table, cells, metric, None, command), first, cells)
    folder = [] if str(output_dir) == "outputs" else ["--output-dir", str(output_dir)]
    page = shlex.join(["blip2sweep", "report", *folder])
    more = f"  the same with {', '.join(settings[1:])}: {page}" if len(settings) > 1 else ""
    return [*lines, *([more] if more else [])]


def price_lines(
    source: Source, found: pd.DataFrame, cells: pd.DataFrame, named: str | None = None, limit: float | None = None
) -> list[str]:
    """The price tables and ladders of `found`, as lines for a terminal. named, limit: as `price_tables` has them."""
    if found.empty:
        return []
    metric, sizes, lines = metric_text(source.metric), sizes_of(cells), list[str]()
    for setting, own in found.groupby("setting", sort=False):
        ladder = ladder_sentence(own, str(setting), sizes, metric)
        lines += [line for p in price_tables(source, own, cells, None, named, limit) for line in p.lines()]
        lines += [f"  {ladder}"] if ladder else []
    return lines


def _draws(output_dir: Path, cells: pd.DataFrame, metric: str, keys: Sequence[str]) -> Draws | None:
    """The draws of these cells and the baseline alone, since reading all would keep a terminal waiting."""
    return load_draws(
        output_dir, cells[cells["key"].isin(list(keys)) | (cells["part"] == "none")], metric, resampled=False
    )
