"""The sentences of a report on further steps: which blocks matter, what a recovery gives back and against what, and where
sums of single drops mislead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from blip2sweep.analysis.cell_row import Row, number
from blip2sweep.analysis.common_images import least_first, order_note
from blip2sweep.analysis.draws import Draws
from blip2sweep.analysis.importance import DROP_ONE, INFLUENCE, agreement
from blip2sweep.analysis.stopped import level_marks
from blip2sweep.reporting.figure import Figure
from blip2sweep.reporting.metric_text import MetricText, metric_text
from blip2sweep.reporting.price_table import sizes_of
from blip2sweep.reporting.source import Source

MOST = 3  # recoveries that are described


def further_steps(figures: Sequence[Figure]) -> bool:
    """Whether some cell has further steps."""
    return any(f.name == "kinds" for f in figures)


def step_sentences(source: Source, figures: Sequence[Figure]) -> list[str]:
    """The sentences; none where no cell has further steps."""
    if not further_steps(figures):
        return []
    frames = {f.name: f.data for f in figures}
    metric = metric_text(source.metric)
    texts = [
        _importance(frames["importance"], metric, source.draws, level_marks(source.cells)),
        _cheapest(source, frames["kinds"], metric),
        *_recovery(frames["recovery"], metric),
        _together(frames["together"], metric),
    ]
    return [t for t in texts if t]


# ---- blocks


def _importance(data: pd.DataFrame, metric: MetricText, draws: Draws | None, marks: Mapping[str, str]) -> str:
    """Of each part the blocks that cost least and most when left out, and how well other measures agree with that. marks:
    `level_marks` of the cells."""
    alone = data[data["measure"] == DROP_ONE] if len(data) else data
    if alone.empty:
        return ""
    groups = alone.groupby("part", sort=False)
    parts = [(str(p), least_first(own, draws, "effect").iloc[[0, -1]]) for p, own in groups if len(own) > 1]
    clauses = [
        f"{part} least ({_block(ends.iloc[0].to_dict(), marks)}) and most ({_block(ends.iloc[1].to_dict(), marks)}){order_note(ends, draws, 'effect')}"
        for part, ends in parts
    ]
    named = [f"{p} ({_block(own.iloc[0].to_dict(), marks)})" for p, own in groups if len(own) == 1]
    text = f"Left out alone, a block costs in {metric.label}: {'; '.join([*clauses, *named])}."
    return text + _agreement(data)


def _cheapest(source: Source, data: pd.DataFrame, metric: MetricText) -> str:
    """The recipes of further steps, but those of single blocks, that cost least before any training."""
    further = source.cells.loc[source.cells["further"] != "", "key"]
    untrained = data[data["key"].isin(further) & (data["how"] == "")].dropna(subset=["drop"]) if len(data) else data
    if untrained.empty:
        return ""
    size, marks = sizes_of(source.cells), level_marks(source.cells)
    least = least_first(untrained.sort_values("model_bytes", kind="stable"), source.draws).head(MOST)
    listed = [
        f"{r['what']} {_amount(r, 'drop', 'drop_low', 'drop_high', mark=marks.get(str(r['key']), ''))} at {size(number(r, 'model_bytes'))}"
        for r in least.to_dict("records")
    ]
    return (
        f"Of {len(untrained)} sets of steps without training, least in {metric.label} is lost by: {'; '.join(listed)}"
        f"{order_note(least, source.draws)}."
    )


def _block(row: Row, marks: Mapping[str, str]) -> str:
    return f"block {row['block']}: {_amount(row, 'effect', 'low', 'high', mark=marks.get(str(row['key']), ''))}"


def _amount(row: Row, value: str, low: str, high: str, digits: int = 3, mark: str = "") -> str:
    """mark: of the interval's level, where it is not 95 %."""
    ends = number(row, low), number(row, high)
    bars = "" if ends[0] != ends[0] else f" [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]{mark}"
    return f"{number(row, value):.{digits}f}{bars}".replace("-", "−")


def _agreement(data: pd.DataFrame) -> str:
    """Rank correlations of influence with single drops."""
    found = agreement(data)
    own = found[(found["one"] == DROP_ONE) & (found["other"] == INFLUENCE)].dropna(subset=["rho"])
    if own.empty:
        return ""
    listed = ", ".join(f"{r['part']} {r['rho']:.2f}" for r in own.to_dict("records")).replace("-", "−")
    return f" Influence orders them alike to this degree (Spearman's rank correlation): {listed}."


# ---- recovery


def _recovery(data: pd.DataFrame, metric: MetricText) -> Iterator[str]:
    """What the best recovery of each compressed model gives back, against the baseline and against its control."""
    if data.empty:
        return
    after = data[(data["steps"] > 0) & ~data["is_control"].astype(bool)].dropna(subset=["retained"])
    best = (
        after.sort_values("drop")
        .drop_duplicates("what")
        .assign(tried=lambda own: own["what"].map(after["what"].value_counts()))
    )
    texts = [_recovered(row, data, metric) for row in best.head(MOST).to_dict("records")]
    if texts:
        more = f" {len(best) - MOST} more are in the figure." if len(best) > MOST else ""
        yield f"Recovery: {'; '.join(texts)}.{more}"
    if len(controls := data[data["is_control"].astype(bool) & (data["steps"] > 0)].dropna(subset=["retained"])):
        ends = controls["retained"].min(), controls["retained"].max()
        span = f"{ends[0]:.0f}" if round(ends[0]) == round(ends[1]) else f"{ends[0]:.0f} to {ends[1]:.0f}"
        yield (
            f"The controls, the uncompressed model with the same recovery, have {span} % of the baseline's {metric.label}. Losses are "
            "told against the baseline unless they say control; those against the control are what compression costs where both "
            f"are trained alike.{_untrained(controls)}"
        )


def _untrained(controls: pd.DataFrame) -> str:
    """That no step of a control's training was better on the held-out images than none."""
    none = int(controls["chosen"].astype(float).eq(0).sum())
    if not none:
        return ""
    return (
        f" For {none} of {len(controls)} controls held-out images chose step 0, so they are the baseline itself: no training helped there, "
        "as where the model was trained on these images before. With recover.holdout=0 the last step is taken."
    )


def _recovered(row: Row, data: pd.DataFrame, metric: MetricText) -> str:
    start = data[(data["what"] == row["what"]) & (data["steps"] == 0)]
    before = f"keeps {start['retained'].iloc[0]:.0f} % of {metric.label} untrained and " if len(start) else "keeps "
    kept = f"{number(row, 'retained'):.0f} %{_percent(row)}"
    of = f", the best of {row['tried']} recoveries" if number(row, "tried") > 1 else ""
    chosen = f" (kept {number(row, 'chosen'):g})" if number(row, "chosen") == number(row, "chosen") else ""
    text = f"{row['what']} {before}{kept} after {row['how']}, {number(row, 'steps'):g} steps{chosen}{of}"
    if number(row, "retained_control") != number(row, "retained_control"):
        return f"{text} (of the baseline; it has no control)"
    lost = _amount(row, "drop_control", "drop_control_low", "drop_control_high")
    return f"{text} (of the baseline), {number(row, 'retained_control'):.0f} % of its control ({metric.worse} {lost})"


def _percent(row: Row) -> str:
    low, high = number(row, "retained_low"), number(row, "retained_high")
    return "" if low != low else f" [{low:.0f}, {high:.0f}]"


# ---- together


def _together(data: pd.DataFrame, metric: MetricText) -> str:
    """How many cells differ from the sum of their pieces, and the one that does most."""
    known = data.dropna(subset=["excess"]) if len(data) else data
    if known.empty:
        return ""
    sure = known[known["misleads"].eq(True)]
    if sure.empty:
        return f"Of {len(known)} cells whose pieces were run alone none differs significantly from the sum of their {metric.worse}s."
    more, less = int((sure["excess"] > 0).sum()), int((sure["excess"] < 0).sum())
    row = sure.sort_values("excess", key=abs).iloc[-1].to_dict()
    return (
        f"Sums of single {metric.worse}s mislead: of {len(known)} cells whose pieces were run alone {more} lose significantly more than the "
        f"sum and {less} less. {row['what'][:1].upper()}{row['what'][1:]}: together {row['together']:.3f}, the sum {row['sum']:.3f}, "
        f"difference {_amount(row, 'excess', 'low', 'high')}. Choose sets of blocks by running them."
    )
