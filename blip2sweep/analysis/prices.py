"""What the next bits cost: the loss and the saving of one step of one part, and the ladder down from full precision.

A step goes from one recipe of whole parts to another that differs in the width of one part. Its price is the loss for
each byte saved, from two cells that were run. Shares of importance cannot replace it: they depend on the widths that
were run and say nothing of what a step saves. As a guide to what to narrow next they are worse than a random choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from blip2sweep.analysis.cells import one_seed, quantized
from blip2sweep.analysis.draws import Draws
from blip2sweep.analysis.dropoff import MARGIN
from blip2sweep.analysis.grid import FREE, width_grid
from blip2sweep.analysis.paired import paired_difference
from blip2sweep.analysis.stopped import of_verdicts, stopped

BROKEN = 0.5  # of the baseline
HERE, ALONE, LADDER = "here", "alone", "ladder"
COLUMNS = ["kind", "setting", "part", "step", "now", "to", "lost", "low", "high", "saved_bytes", "price",
           "model_bytes", "value", "key", "beside"]  # fmt: skip
Widths = tuple[float, ...]  # of each part, in bits; 16 stands for left alone
Lost = Callable[["State", "State"], float]  # what the second of two cells loses more than the first


class State(NamedTuple):
    """A cell of whole parts. value: its metric; drop, low, high: how much worse it is than the baseline."""

    key: str
    model_bytes: float
    value: float
    drop: float
    low: float
    high: float


@dataclass(frozen=True)
class States:
    """The cells of one setting whose parts are whole, by the widths of the parts. The baseline is among them. lost: how
    two of them are compared.
    """

    setting: str
    parts: tuple[str, ...]
    known: Mapping[Widths, State]
    lost: Lost = lambda here, to: to.drop - here.drop

    @property
    def full(self) -> Widths:
        """The widths of the baseline."""
        return (float(FREE),) * len(self.parts)

    def widths(self, i: int) -> list[float]:
        """The widths of the i-th part that were run in any cell, and 16; the narrowest first."""
        return sorted({w[i] for w in self.known} | {float(FREE)})

    def beside(self, at: Widths, i: int, narrower: bool) -> Widths | None:
        """The widths with the i-th part one width narrower or wider; None where no cell has such a width."""
        further = [w for w in self.widths(i) if (w < at[i] if narrower else w > at[i])]
        return None if not further else (*at[:i], max(further) if narrower else min(further), *at[i + 1 :])

    def standing(self, margin: float = MARGIN) -> Widths:
        """The widths of the smallest cell whose drop is at most margin × baseline."""
        base = self.known[self.full]
        within = [w for w, s in self.known.items() if s.drop <= margin * abs(base.value)]
        least = min((self.known[w].model_bytes for w in within), default=0.0)
        alike = sorted((w for w in within if self.known[w].model_bytes == least), key=lambda w: self.known[w].drop)
        best = alike[0] if alike else self.full
        for other in alike[1:]:
            best = other if self.lost(self.known[best], self.known[other]) < 0 else best
        return best

    def of(self, key: str) -> Widths | None:
        """The widths of the cell of a key; None where its parts are not whole."""
        return next((w for w, s in self.known.items() if s.key == key), None)


def states(cells: pd.DataFrame, metric: str) -> list[States]:
    """The states of every setting with whole parts, the setting with most cells first.

    Cells that stopped with a verdict are left out. Empty where sizes, or the baseline's value, are unknown.
    """
    chosen = one_seed(quantized(cells[~of_verdicts(cells)]))
    grid = width_grid(chosen, metric)
    sizes = chosen.set_index("key").get("model_bytes")
    if sizes is None or grid.empty:
        return []
    grid = grid.assign(model_bytes=grid["key"].map(sizes)).dropna(subset=["model_bytes", "value", "drop"])
    parts = tuple(str(c) for c in grid.columns if f"bits_{c}" in cells)
    base = grid[grid["setting"] == "none"]
    made = [_states(str(s), parts, pd.concat([base, own])) for s, own in grid.groupby("setting") if s != "none"]
    return sorted(made, key=lambda m: (-len(m.known), m.setting)) if len(base) else []


def _states(setting: str, parts: tuple[str, ...], own: pd.DataFrame) -> States:
    known = {}
    for row in own.to_dict("records"):
        numbers = (float(row[c]) for c in ("model_bytes", "value", "drop", "low", "high"))
        known[tuple(float(row[p]) for p in parts)] = State(str(row["key"]), *numbers)
    return States(setting, parts, known)


def prices(
    cells: pd.DataFrame, metric: str, draws: Callable[[Sequence[str]], Draws | None], at: str | None = None
) -> pd.DataFrame:
    """One row for each step of every setting. The column `kind` says which steps they are:

    - here: the steps of each part, narrower and wider, from one recipe. The recipe is that of the cell `at` (a key), or of
      the smallest cell that loses at most 2 %. `beside` is the key of that cell. A step whose cell was not run has no
      `key`.
    - alone: the steps of each part with the others left alone. They replace `here` where no cell of two parts was run, or
      none beside that recipe.
    - ladder: the way down from full precision. Each rung is the narrower cell that loses least for each byte among those
      that were run; it may skip widths. The ladder ends where half of the baseline is lost.

    `lost` is the metric that the narrower of the two cells loses, with its paired 95 % interval. `saved_bytes` is what
    it saves. `price` is lost / saved_bytes, NaN where the interval covers 0.

    draws: returns the draws of the cells with these keys, or None. Cells of which one stopped are compared on the images
    that both have.
    """
    made = states(cells, metric)
    if stopped(cells).any():
        every = draws(list({s.key for own in made for s in own.known.values()}))
        made = [replace(own, lost=partial(_on_common, every)) for own in made]
    found = [row for own in made for row in _rows(own, at)]
    table = pd.DataFrame(found, columns=COLUMNS)
    wanted = table.dropna(subset=["key", "beside"])
    sampled = draws(list(dict.fromkeys([*wanted["key"], *wanted["beside"]]))) if len(wanted) else None
    for i, row in wanted.iterrows():
        if sampled is not None and row["key"] in sampled and row["beside"] in sampled:
            narrow, wide = (row["key"], row["beside"]) if row["step"] != "wider" else (row["beside"], row["key"])
            table.loc[i, ["lost", "low", "high"]] = list(sampled.paired(narrow, wide))
    covered = (table["low"] <= 0) & (table["high"] >= 0)
    table["price"] = (table["lost"] / table["saved_bytes"]).where(~covered & (table["saved_bytes"] > 0))
    return table


def _on_common(draws: Draws | None, here: State, to: State) -> float:
    """What a cell loses more than another, on the images that both have."""
    return paired_difference(draws, to.key, here.key, to.drop - here.drop).value


def _rows(own: States, at: str | None) -> Iterator[dict[str, object]]:
    several = any(sum(w != FREE for w in widths) > 1 for widths in own.known)
    if not several:
        for i in range(len(own.parts)):
            yield from _alone(own, i)
        return
    here = list(_here(own, (own.of(at) if at else None) or own.standing()))
    yield from here
    if not any("key" in row for row in here):
        for i in range(len(own.parts)):
            yield from _alone(own, i)
    yield from _ladder(own)


def _row(own: States, kind: str, i: int, now: Widths, to: Widths, step: str) -> dict[str, object]:
    """The step of the i-th part from a cell that was run to one that need not have been."""
    names = {"kind": kind, "setting": own.setting, "part": own.parts[i], "step": step, "now": now[i], "to": to[i]}
    one, other = own.known[now], own.known.get(to)
    if other is None:
        return {**names, "beside": one.key, "lost": np.nan, "low": np.nan, "high": np.nan, "saved_bytes": np.nan}
    lost, saved = own.lost(one, other), one.model_bytes - other.model_bytes
    ends = (other.low, other.high) if now == own.full else (np.nan, np.nan)
    sign = -1 if step == "wider" else 1
    return {**names, "lost": sign * lost, "low": ends[0], "high": ends[1], "saved_bytes": sign * saved,
            "model_bytes": other.model_bytes, "value": other.value, "key": other.key, "beside": one.key}  # fmt: skip


def _here(own: States, at: Widths) -> Iterator[dict[str, object]]:
    for i in range(len(own.parts)):
        for step in ("narrower", "wider"):
            to = own.beside(at, i, step == "narrower")
            if to is not None:
                yield _row(own, HERE, i, at, to, step)


def _alone(own: States, i: int) -> Iterator[dict[str, object]]:
    now = own.full
    run = [w for w in own.known if w[i] != FREE and sum(x != FREE for x in w) == 1]
    for to in sorted(run, key=lambda w: -w[i]):
        yield _row(own, ALONE, i, now, to, "narrower")
        now = to


def _ladder(own: States) -> Iterator[dict[str, object]]:
    """The rungs down to the first that is broken; further ones save nothing of use."""
    now, base = own.full, abs(own.known[own.full].value)
    while own.known[now].drop <= BROKEN * base and (found := _next(own, now)) is not None:
        i, to = found
        yield _row(own, LADDER, i, now, to, "narrower")
        now = to


def _next(own: States, now: Widths) -> tuple[int, Widths] | None:
    """The part and the widths of the narrower cell that loses least for each byte; cells differ in one part."""
    here, steps = own.known[now], list[tuple[float, int, Widths]]()
    for to, state in own.known.items():
        narrower = [i for i in range(len(now)) if to[i] != now[i]]
        if len(narrower) == 1 and to[narrower[0]] < now[narrower[0]] and state.model_bytes < here.model_bytes:
            price = own.lost(here, state) / (here.model_bytes - state.model_bytes)
            steps.append((price, narrower[0], to))
    return min(steps)[1:] if steps else None


def advised(here: pd.DataFrame) -> pd.Series | None:
    """The narrower step to take next, among those that were run: the one that saves most of those whose loss is not
    significant, else the cheapest.
    """
    steps = here[(here["step"] == "narrower") & here["lost"].notna()]
    if steps.empty:
        return None
    free = steps[(steps["low"] <= 0) | (steps["low"].isna() & (steps["lost"] <= 0))]
    if len(free):
        return free.sort_values("saved_bytes").iloc[-1]
    return steps.iloc[int((steps["lost"] / steps["saved_bytes"]).to_numpy().argmin())]
