"""The price table in words: what a step of one part loses, saves and costs, what was not run, and what comes next."""

from __future__ import annotations

import html
import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from blip2sweep.analysis.cells import comparable
from blip2sweep.analysis.draws import Draws, load_draws
from blip2sweep.analysis.grid import FREE
from blip2sweep.analysis.main_metric import main_metric
from blip2sweep.analysis.prices import ALONE, HERE, LADDER, advised, prices, states
from blip2sweep.analysis.recipes import entries, overrides_of, part_of
from blip2sweep.errors import UserError
from blip2sweep.reporting.rerun import context
from blip2sweep.reporting.source import Source
from blip2sweep.reporting.words import Words, words_of

RUN = "python -m blip2sweep -m"
UNITS = ((1e9, 1e6, "MB"), (1e6, 1e3, "kB"), (0.0, 1.0, "bytes"))


@dataclass(frozen=True)
class Sizes:
    """How sizes and prices of a model are written, by the baseline's bytes: MB and prices a 100 MB for one of 7.5 GB."""

    base: float

    def __call__(self, size: float) -> str:
        digits = 0 if abs(size) >= 10 * self.scale or self.scale == 1 or size % self.scale == 0 else 1
        return f"{size / self.scale:,.{digits}f} {self.unit}"

    @property
    def scale(self) -> float:
        return self._unit[0]

    @property
    def unit(self) -> str:
        return self._unit[1]

    @property
    def per(self) -> float:
        """The bytes that a price is of: about a hundredth of the model."""
        return float(10.0 ** (math.floor(math.log10(max(self.base, 10.0))) - 1))

    @property
    def _unit(self) -> tuple[float, str]:
        return next((scale, name) for least, scale, name in UNITS if self.base >= least)


@dataclass(frozen=True)
class Priced:
    """One setting's price table. rows: part, step, lost, saved, price; missing: cells that lack, each with its command or None."""

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    missing: list[tuple[str, str | None]]
    advice: str

    def lines(self) -> list[str]:
        """For a terminal."""
        table = [self.head, *self.rows]
        widths = [max(len(r[i]) for r in table) for i in range(len(self.head))]
        drawn = ["  " + "  ".join(v.ljust(w) for v, w in zip(r, widths, strict=True)).rstrip() for r in table]
        lacking = [f"  not run: {what}" + (f": {command}" if command else "") for what, command in self.missing]
        return [f"{self.title}:", *drawn, *lacking, *([f"  {self.advice}"] if self.advice else [])]

    def html(self) -> str:
        """The same as a table of the page."""
        head = "".join(f'<th scope="col">{html.escape(c)}</th>' for c in self.head)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(v)}</td>" for v in r) + "</tr>" for r in self.rows)
        lacking = "".join(
            f"<li>{html.escape(what)}" + (f": <code>{html.escape(command)}</code>" if command else "") + "</li>"
            for what, command in self.missing
        )
        told = f"<p>Not run:</p><ul>{lacking}</ul>" if lacking else ""
        advice = f"<p>{html.escape(self.advice[:1].upper() + self.advice[1:])}.</p>" if self.advice else ""
        title = html.escape(self.title[:1].upper() + self.title[1:])
        return (
            f'<h3>{title}</h3><div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>{advice}{told}"
        )


def priced(
    source: Source, found: pd.DataFrame, cells: pd.DataFrame | None = None, most: int | None = None
) -> list[Priced]:
    """The price table of each setting, of the first `most`. found: as `prices` gives it, of `cells`; without these the source's."""
    cells = source.cells if cells is None else cells
    rows = found[found["kind"].isin([HERE, ALONE])]
    return [_priced(source, cells, own) for _, own in list(rows.groupby("setting", sort=False))[:most]]


def _priced(source: Source, cells: pd.DataFrame, own: pd.DataFrame) -> Priced:
    words, sizes, run = words_of(source.metric), sizes_of(cells), own[own["key"].notna()]
    here, setting = own[own["kind"] == HERE], str(own["setting"].iloc[0])
    alone = (run["kind"] == ALONE).any()
    where = "each part alone, the others at 16 bits" if alone else f"at {_at(cells, str(here['beside'].iloc[0]))}"
    head = (
        "part",
        "bits",
        f"{words.name} {'lost' if words.higher else 'risen'} [95 %]",
        "saved",
        f"per {sizes(sizes.per)}",
    )
    rows = [_row(r, words, sizes) for r in run.to_dict("records")]
    advice = "" if alone else _advice(here, words, sizes)
    title = f"what the next bits cost with {setting}, {where}"
    return Priced(title, head, rows, list(_missing(source, cells, here[here["key"].isna()])), advice)


def _row(row: dict[Any, Any], words: Words, sizes: Sizes) -> tuple[str, ...]:
    """A wider step is told as what it wins back and what it takes."""
    sign = -1 if row["step"] == "wider" else 1
    lost, ends = sign * row["lost"], sorted((sign * row["low"], sign * row["high"]))
    bars = "" if math.isnan(ends[0]) else f" [{_signed(ends[0])}, {_signed(ends[1])}]"
    return (row["part"], f"{_bits(row['now'])} → {_bits(row['to'])}", f"{_signed(lost)}{bars}",
            sizes(sign * row["saved_bytes"]).replace("-", "−"), price_of(row, sizes))  # fmt: skip


def price_of(row: Any, sizes: Sizes) -> str:
    """`0.097`, or `free within ±0.012` where the loss is not significant."""
    if row["low"] <= 0 <= row["high"]:
        return f"free within ±{max(abs(row['low']), abs(row['high'])):.3f}"
    return "" if pd.isna(row["price"]) else _signed(row["price"] * sizes.per)


def _advice(own: pd.DataFrame, words: Words, sizes: Sizes) -> str:
    step = advised(own)
    if step is None:
        return ""
    why = (
        f"the {words.worse} is not significant, and it saves most"
        if step["low"] <= 0
        else f"the least {words.worse} for its size"
    )
    told = f"{step['part']} from {_bits(step['now'])} to {_bits(step['to'])} bits"
    return f"of these, narrow {told} next: {why} ({sizes(step['saved_bytes'])})"


def sizes_of(cells: pd.DataFrame) -> Sizes:
    return Sizes(float(cells.loc[cells["part"] == "none", "model_bytes"].iloc[0]))


def _at(cells: pd.DataFrame, key: str) -> str:
    """`vision 4, connector 8 and language 4 bits (cell 1f0c…)`."""
    row = cells[cells["key"] == key].iloc[0]
    widths = _widths(row["recipe_json"])
    told = " and ".join(", ".join(f"{p} {_bits(w)}" for p, w in widths.items()).rsplit(", ", 1))
    return f"{told} bits (cell {key})" if widths else f"full precision (cell {key})"


def _widths(recipe_json: str) -> dict[str, float]:
    """Of the parts of a recipe of whole parts."""
    return {part_of(e): float(e["bits"]) for e in entries(str(recipe_json))}


def _bits(width: float) -> str:
    return f"{width:g}"


def _signed(value: float) -> str:
    return f"{value + 0.0:.3f}".replace("-0.000", "0.000").replace("-", "−")


# ---- cells that lack


def _missing(source: Source, cells: pd.DataFrame, lacking: pd.DataFrame) -> Iterator[tuple[str, str | None]]:
    """A line a part, for both directions."""
    for part, own in lacking.groupby("part", sort=False):
        row, to = own.iloc[0], list(own["to"])
        told = f"{part} {_bits(row['now'])} → {' and '.join(map(_bits, to))} bits"
        yield told, _command(source, cells, str(row["setting"]), str(row["beside"]), str(part), to)


def _command(
    source: Source, cells: pd.DataFrame, setting: str, beside: str, part: str, to: Sequence[float]
) -> str | None:
    """The line that runs the cells beside one, which differ in the width of one part; None where rows do not tell it."""
    whole = {s.key for found in states(cells, source.metric) if found.setting == setting for s in found.known.values()}
    own = cells[cells["key"].isin(whole) & (cells["part"] != "none")]
    like = max(own.to_dict("records"), key=lambda r: str(r["parts"]).count("+"))
    words, parts = overrides_of(entries(str(like["recipe_json"]))), str(like["parts"]).split("+")
    widths = _widths(cells.loc[cells["key"] == beside, "recipe_json"].iloc[0])
    bits = {p: _bits(w) for p, w in widths.items()} | {part: ",".join("none" if w == FREE else _bits(w) for w in to)}
    if words is None or not set(bits) <= set(parts):
        return None
    ordered = [p for p in parts if p in bits]
    kept = [w for w in words[1:] if not w.startswith("per_part.") or w.split(".")[1] in bits]
    wanted = [f"part={'+'.join(ordered)}", *kept, *(f"per_part.{p}.bits={bits[p]}" for p in ordered)]
    try:
        return f"{RUN} {shlex.join([*context(source, [entries(str(like['recipe_json']))], like), *wanted])}"
    except UserError:
        return None


# ---- the ladder


def ladder_told(found: pd.DataFrame, setting: str, sizes: Sizes, words: Words) -> str:
    """One sentence; empty where there is no ladder."""
    own = found[(found["kind"] == LADDER) & (found["setting"] == setting)]
    if own.empty:
        return ""
    steps = " → ".join(f"{r['part']} {_bits(r['to'])}" for r in own.to_dict("records"))
    last = own.iloc[-1]
    return (
        f"the ladder from full precision with {setting}, of the cells that were run the least {words.worse} for its size first: {steps} bits "
        f"({sizes(last['model_bytes'])}, {words.name} {last['value']:.3f})"
    )


def told_of(output_dir: Path, table: pd.DataFrame, command: str) -> list[str]:
    """Lines for the terminal after a sweep; none where its cells are of several kinds or have no steps to price."""
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
    lines = lines_of(Source(output_dir, "", output_dir, table, cells, metric, None, command), first, cells)
    more = f"  the same with {', '.join(settings[1:])}: blip2sweep report" if len(settings) > 1 else ""
    return [*lines, *([more] if more else [])]


def lines_of(source: Source, found: pd.DataFrame, cells: pd.DataFrame) -> list[str]:
    """The price tables and ladders of `found`, for a terminal."""
    if found.empty:
        return []
    words, sizes, lines = words_of(source.metric), sizes_of(cells), list[str]()
    for setting, own in found.groupby("setting", sort=False):
        ladder = ladder_told(own, str(setting), sizes, words)
        lines += [line for p in priced(source, own, cells) for line in p.lines()]
        lines += [f"  {ladder}"] if ladder else []
    return lines


def _draws(output_dir: Path, cells: pd.DataFrame, metric: str, keys: Sequence[str]) -> Draws | None:
    """Of these cells alone: a terminal does not wait for all."""
    return load_draws(
        output_dir, cells[cells["key"].isin(list(keys)) | (cells["part"] == "none")], metric, resampled=False
    )
