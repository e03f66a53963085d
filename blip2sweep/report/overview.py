"""The three sentences that matter: where it breaks, which part matters, what is safe and what to run next."""

from __future__ import annotations

import pandas as pd

from blip2sweep.analysis.cells import headline
from blip2sweep.analysis.dropoff import MARGIN, dropoff, lowest_safe
from blip2sweep.analysis.predict import cross_validated
from blip2sweep.analysis.recommend import FEWEST_CELLS
from blip2sweep.report.figures import Figure, label
from blip2sweep.report.source import Source

BROKEN = 50.0  # % of the baseline


def sentences(source: Source, figures: list[Figure]) -> list[str]:
    """Plain text, one sentence each."""
    curves = dropoff(headline(source.cells), source.metric, source.draws)
    shapley = next(f for f in figures if f.name == "shapley").data
    return [_breaks(curves, label(source)), _matters(curves, shapley, label(source)), _safe(curves)]


def _breaks(curves: pd.DataFrame, metric: str) -> str:
    if curves.empty:
        return f"Only the baseline was run, or cells of several widths: there is no drop-off of {metric} to see yet."
    broken = curves[curves["retained"] < BROKEN]
    if broken.empty:
        return f"Nothing that was run breaks the model: every cell keeps at least {curves['retained'].min():.0f} % of {metric}."
    first = broken.sort_values(["width", "retained"], ascending=[False, True]).iloc[0]
    own = broken[broken["parts"].isin([p for p in broken["parts"] if "+" not in p])]
    single = own.sort_values("width", ascending=False).groupby("parts")["width"].max()
    alone = ", ".join(f"{p} at {w:g} bits" for p, w in single.items())
    alone = f" Alone, a part loses half of {metric}: {alone}." if alone else ""
    return (
        f"It breaks at {first['width']:g} bits: {first['parts'].replace('+', ' + ')} keeps {first['retained']:.0f} % of "
        f"{metric}.{alone}"
    )


def _matters(curves: pd.DataFrame, shapley: pd.DataFrame, metric: str) -> str:
    if len(shapley):
        middle = shapley[shapley["kind"] == "part"]
        telling = middle.assign(_d=(middle["total"] / middle["total"].max() - 0.5).abs())
        own = (
            telling[telling["_d"] == telling["_d"].min()].drop_duplicates("term").sort_values("value", ascending=False)
        )
        shares = ", ".join(f"{r['term']} {_signed(r)}" for r in own.to_dict("records"))
        return f"At {own['width'].iloc[0]:g} bits the drop of {own['total'].iloc[0]:.3f} {metric} is shared out as {shares} (Shapley values)."
    single = curves[~curves["parts"].str.contains("+", regex=False)]
    if single.empty:
        return "No part was compressed alone, so nothing is known of which part matters."
    worst = single.sort_values("drop").iloc[-1]
    return f"Of the parts alone, {worst['parts']} at {worst['width']:g} bits costs most: {worst['drop']:.3f} {metric}."


def _signed(row: dict[object, object]) -> str:
    low, high = row["low"], row["high"]
    bars = "" if low != low else f" [{low:.3f}, {high:.3f}]"
    return f"{row['value']:.3f}{bars}"


def _safe(curves: pd.DataFrame) -> str:
    safe = lowest_safe(curves)
    known = safe.dropna(subset=["lowest_safe"]) if len(safe) else safe
    if known.empty:
        return f"No width that was run is shown to be safe within {MARGIN:.0%} (one-sided 97.5 %)."
    best = known.sort_values("lowest_safe").groupby("parts").first()
    listed = ", ".join(f"{str(p).replace('+', ' + ')} down to {w:g} bits" for p, w in best["lowest_safe"].items())
    return f"Safe within {MARGIN:.0%} of the baseline (tested in fixed sequence, one-sided 97.5 %): {listed}."


def model_quality(source: Source) -> str | None:
    """Cross-validated error of the predictor against the two baselines it has to beat."""
    from blip2sweep.analysis.atoms import noise
    from blip2sweep.analysis.recommend import problems

    if source.anatomy is None or len(source.cells) < 2 * FEWEST_CELLS:
        return None
    found = max(problems(source.cells, source.anatomy), key=lambda p: len(p.cells))
    own = found.cells.iloc[:200]
    widths = found.atoms.widths[:200]
    base = float(own.loc[own["part"] == "none", source.metric].iloc[0])
    errors = cross_validated(widths, noise(widths), own[source.metric].to_numpy(float), base, found.atoms.groups)
    told = ", ".join(f"{name} {error:.3f}" for name, error in errors.items())
    return f"Predicting cells that were not run, mean absolute error in {source.metric} (5-fold): {told}."
