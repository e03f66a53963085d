"""Two sweeps or two models side by side: the drops of both at the same parts and width, and what is known of their difference."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

import pandas as pd

from blip2sweep.analysis.cell_row import Row, number
from blip2sweep.analysis.draws import Draws
from blip2sweep.analysis.models import UNKNOWN, by_role, grounds, role_rank
from blip2sweep.analysis.paired import paired_difference
from blip2sweep.analysis.recipes import part_names
from blip2sweep.analysis.stopped import LEVEL_TEXT, level_text
from blip2sweep.errors import UserError
from blip2sweep.models.part import ROLES
from blip2sweep.reporting.comparison import Comparison
from blip2sweep.reporting.figure import Figure, roles_of
from blip2sweep.reporting.metric_text import MetricText, metric_text
from blip2sweep.reporting.pair import Pair
from blip2sweep.reporting.source import Source
from blip2sweep.reporting.stopped_text import with_stopped

DIFFERING = ("model", "dtype", "stored", "backend", "generation", "weights")
MOST_ROWS, MOST_LETTERS = 400, 60


def side_by_side(pair: Pair) -> Comparison:
    """The comparison of two. Raises UserError where they have no parts at one width in common."""
    rows = [_rows(pair, s) for s in pair.models]
    matched = _matched(rows[0], rows[1], _parts(pair))
    if matched.empty:
        raise UserError(
            f"report: {' and '.join(pair.names)} have no parts at one width in common, so nothing can be compared; right: "
            "run the same part and quant.bits in both"
        )
    metric = metric_text(pair.models[0].metric)
    known = _with_differences(pair, matched) if pair.paired else matched
    data = pd.concat([_one_side(matched, pair.names[i], i) for i in (0, 1)], ignore_index=True)
    figure = Figure("models", pair.title, _caption(metric), data, "", table=_table(known, pair.names, metric))
    figure = with_stopped(figure, pd.concat([s.cells for s in pair.models]))
    return Comparison(figure, metric, list(_notes(pair, known, metric)))


def _rows(pair: Pair, source: Source) -> pd.DataFrame:
    """`by_role` of one; of one model by its parts, where '' keeps all of them from being called all."""
    parts = _parts(pair)
    roles = {p: p for p in ["", *parts]} if parts else roles_of(source)
    found = by_role(source.cells, source.metric, source.draws, roles)
    return found.dropna(subset=["drop"])


def _parts(pair: Pair) -> list[str]:
    """The parts that either touches, in the model's order; none of two models, which are compared by role."""
    if len({s.model for s in pair.models}) > 1:
        return []
    known = [*(pair.models[0].anatomy.parts if pair.models[0].anatomy else ()), *ROLES]
    found = list(dict.fromkeys(p for s in pair.models for p in part_names(s.cells)))
    return sorted(found, key=lambda p: known.index(p) if p in known else len(known))


def _matched(one: pd.DataFrame, other: pd.DataFrame, parts: Sequence[str]) -> pd.DataFrame:
    """One row for each pair of cells at the same parts and width, with the columns of both, `_0` and `_1`. parts: in the
    order in which rows have them, single ones first.

    Of the same method, and each method that only one has with each that only the other has.
    """
    mine, theirs = (list(dict.fromkeys(f["setting"])) for f in (one, other))
    pairs = [(s, s) for s in mine if s in theirs]
    pairs += product([s for s in mine if s not in theirs], [s for s in theirs if s not in mine])
    made = [_joined(one, other, a, b) for a, b in pairs]
    found = pd.concat(made, ignore_index=True) if made else pd.DataFrame(columns=["role"])
    if found.empty:
        return found
    ranks = {role: i for i, role in enumerate(sorted(found["role"].unique(), key=lambda r: _rank(r, parts)))}
    order = ["_rank", "setting", "width"]
    return found.assign(_rank=found["role"].map(ranks)).sort_values(order, ascending=[True, True, False], kind="stable")


def _rank(role: str, parts: Sequence[str]) -> tuple[object, ...]:
    words = role.partition(", ")[0].split(" + ")
    own = [parts.index(w) if w in parts else len(parts) for w in words]
    return (len(words), own, role) if set(words) <= set(parts) else role_rank(role)


def _joined(one: pd.DataFrame, other: pd.DataFrame, mine: str, theirs: str) -> pd.DataFrame:
    sides = (one[one["setting"] == mine], other[other["setting"] == theirs])
    both = sides[0].merge(sides[1], on=["role", "width"], suffixes=("_0", "_1"))
    return both.assign(setting=mine if mine == theirs else f"{mine} and {theirs}")


def _one_side(matched: pd.DataFrame, name: str, i: int) -> pd.DataFrame:
    """The rows of one as the figure of models has them: `setting` is of both, `method` its own."""
    own = [c for c in matched if str(c).endswith(f"_{i}")]
    names = {c: "method" if c == f"setting_{i}" else str(c).removesuffix(f"_{i}") for c in own}
    return matched[["role", "setting", "width", *own]].rename(columns=names).assign(model=name)


def _with_differences(pair: Pair, matched: pd.DataFrame) -> pd.DataFrame:
    """With `difference, low, high`: the drop of the second minus that of the first, paired by image, in the metric."""
    draws, sign = _both(pair), 1 if metric_text(pair.models[0].metric).higher_is_better else -1
    value = sign * (matched["value_0"] - matched["value_1"])
    pairs = zip(matched["key_0"], matched["key_1"], value, strict=True)
    told = [paired_difference(draws, b, a, v) for a, b, v in pairs]
    found = pd.DataFrame(told, index=matched.index, columns=["value", "low", "high"])
    return matched.assign(difference=found["value"], low=found["low"], high=found["high"])


def _both(pair: Pair) -> Draws | None:
    """The draws of the cells of both, whose baseline is one; without resamples."""
    one, other = (s.draws for s in pair.models)
    if not (one and other):
        return None
    return replace(one, arrays={**one.arrays, **other.arrays}, resampled={}, seen={**one.seen, **other.seen})


# ---- words


def _caption(metric: MetricText) -> str:
    return (
        f"{metric.worse.capitalize()} of {metric.label} in % of each one's own baseline against the width of the layers touched; lower on the "
        "page is worse. Bars: 95 % intervals over images, paired with the own baseline."
    )


def _notes(pair: Pair, known: pd.DataFrame, metric: MetricText) -> Iterator[str]:
    """What the difference is, or why it is not tested, and what else differs."""
    one, other = pair.names
    if "difference" in known:
        own = known[known["key_0"] != known["key_1"]].dropna(subset=["low"])
        both = pd.concat([s.cells for s in pair.models])
        less, more = int((own["high"] < 0).sum()), int((own["low"] > 0).sum())
        yield (
            f"of {len(own)} pairs of different cells at the same parts and width {other} loses significantly less {metric.label} than {one} in "
            f"{less}, more in {more}, and in {len(own) - less - more} the two are not told apart ({level_text(both)} each, paired by image)"
        )
        if same := int((known["key_0"] == known["key_1"]).sum()):
            yield f"{same} pairs are one and the same cell, which both sweeps asked for"
    else:
        yield "each is compared with its own baseline, and the two are not tested against each other"
    if not pair.paired and any(UNKNOWN in grounds(s.cells, s.metric) for s in pair.models):
        yield "whether both were scored on the same samples is not known: rows do not say"
    for column in DIFFERING:
        values = [_value(s, column) for s in pair.models]
        if values[0] != values[1] and None not in values:
            yield f"{column} differs: {', '.join(f'{v} ({n})' for v, n in zip(values, pair.names, strict=True))}"


def _value(source: Source, column: str) -> str | None:
    row = source.cells[source.cells["part"] == "none"].iloc[0]
    value = row.get(column)
    return None if value is None or value != value else str(value)[:MOST_LETTERS]


def _table(known: pd.DataFrame, names: list[str], metric: MetricText) -> str:
    """Parts × bits as HTML: what each loses, and their difference where it is tested."""
    more = [f"{names[1]} − {names[0]}, {metric.label} lost [{LEVEL_TEXT}]"] if "difference" in known else []
    sides = [
        f"{name}: {what}" for name in names for what in ("method", f"{metric.worse}, % of its baseline", "bits/weight")
    ]
    heads = "".join(f'<th scope="col">{html.escape(h)}</th>' for h in ["parts", "bits", *sides, *more])
    rows = (_cells(r) for r in known.head(MOST_ROWS).to_dict("records"))
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(t)}</td>' for t in texts)}</tr>" for texts in rows)
    left = (
        f"<p>The first {MOST_ROWS} of {len(known)} rows; all are in the data below.</p>"
        if len(known) > MOST_ROWS
        else ""
    )
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>{left}'


def _cells(row: Row) -> list[str]:
    texts = [str(row["role"]), f"{row['width']:g}"]
    for i in (0, 1):
        lost = _with_ends(1, *(number(row, f"drop{end}_{i}") for end in ("", "_low", "_high"))) + str(row[f"level_{i}"])
        texts += [str(row[f"setting_{i}"]), lost, f"{number(row, f'bits_per_weight_{i}'):.2f}"]
    if "difference" in row:
        same = row["key_0"] == row["key_1"]
        texts.append(
            "the same cell"
            if same
            else _with_ends(3, *(number(row, c) for c in ("difference", "low", "high")))
            + str(row["level_0"] or row["level_1"])
        )
    return texts


def _with_ends(digits: int, value: float, low: float, high: float) -> str:
    ends = "" if math.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{round(value, digits) + 0.0:.{digits}f}{ends}".replace("-", "−")
