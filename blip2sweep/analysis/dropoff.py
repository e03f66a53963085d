"""Drop-off: the metric against width, the lowest width that is safe, and the widths that would say more."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import pandas as pd

from blip2sweep.analysis.bands import max_t
from blip2sweep.analysis.cell_row import Row, number
from blip2sweep.analysis.cells import quantized
from blip2sweep.analysis.draws import Draws
from blip2sweep.analysis.stopped import stopped, stopped_at
from blip2sweep.metrics import METRICS, Kept, fewest_images, unseen

SEQUENCE = (8, 6, 5, 4, 3, 2)
MARGIN = 0.02  # of the baseline
CURVE = ["setting", "parts", "line"]  # columns that say which curve a cell is on


def dropoff(cells: pd.DataFrame, metric: str, draws: Draws | None) -> pd.DataFrame:
    """One row for each cell of one width: how much of the metric is retained, and the drop with its interval and band.

    cells: as `comparable` gives them, or some of them; those of further steps are left out. `retained` is in % of the baseline: below 100 where a cell is
    worse, or above 100 where lower is better. `images`: the number of images scored; `changed`: the number of those on
    which the cell differs from the baseline. The band is simultaneous over the given cells of one setting. Cells
    without outputs (imported scores) have NaN intervals; `retained` is NaN where the baseline is 0. `images` are those
    of the cell: of one that stopped fewer than others have, and its intervals have 99.5 %.
    Each curve has one row at each width, of the lowest calibration `seed`. Rows of other seeds have `point` set.
    """
    cells = quantized(cells)
    rows = cells[cells["width"].notna()].copy()
    wanted = ["key", "setting", "line", "parts", "width", "seed", "bits_per_weight", metric, f"baseline_{metric}"]
    out = rows[wanted].rename(columns={metric: "value", f"baseline_{metric}": "baseline"})
    for end in ("", "_low", "_high"):
        out[f"drop{end}"] = rows.get(f"drop_{metric}{end}", pd.Series(np.nan, index=rows.index))
    out["noise"] = rows.get(f"noise_{metric}", pd.Series(np.nan, index=rows.index))
    level = out["baseline"].abs().where(out["baseline"] != 0)
    for name, column in (("images", "images"), ("changed", f"changed_{metric}")):
        out[name] = rows.get(column, pd.Series(np.nan, index=rows.index))
    if stopped(rows).any():
        out["stopped"] = [stopped_at(r) for r in rows.to_dict("records")]
    out["retained"] = 100 * METRICS[metric].retained(level, out["drop"])
    out["retained_low"], out["retained_high"] = retained_ends(out["key"], draws)
    out["band_low"], out["band_high"] = _bands(out, draws)
    out = out.sort_values([*CURVE, "width", "seed"]).reset_index(drop=True)
    return out.assign(point=out.duplicated([*CURVE, "width"]))


def retained_ends(keys: pd.Series, draws: Draws | None) -> tuple[pd.Series, pd.Series]:
    """The ends of the 95 % interval of the ratio of cell and baseline, in %; never below 0. NaN without outputs.

    Of cells that stopped it is their interval of 99.5 %.
    """
    found: dict[str, Kept] = {}
    if draws is not None:
        found = {k: draws.kept(k) for k in set(keys).intersection(draws.arrays)}
    low, high = (keys.map({k: 100 * ends[i] for k, ends in found.items()}).astype(float) for i in (1, 2))
    return low, high


def _bands(out: pd.DataFrame, draws: Draws | None) -> tuple[pd.Series, pd.Series]:
    low, high = (pd.Series(np.nan, index=out.index) for _ in range(2))
    if draws is None or not draws.metric.interval:
        return low, high
    for _, family in out[out["key"].isin(list(draws.arrays))].groupby("setting"):
        keys = list(family["key"])
        least = np.array([draws.least(k) for k in keys])
        images = min(map(draws.count, keys))
        ends = max_t(family["drop"].to_numpy(float), draws.drops(keys), images=images, least=least)
        low[family.index], high[family.index] = ends
    return low, high


def lowest_safe(curves: pd.DataFrame, margin: float = MARGIN) -> pd.DataFrame:
    """The lowest safe width of each curve, in bits; one row for each curve.

    A width is safe where the upper end of the drop's 95 % interval, a one-sided 97.5 % bound, is below margin ×
    baseline, and where all wider widths that were run are safe. Widths are tested in the fixed sequence 8 → 6 → 5 → 4 →
    3 → 2, so no correction for their number is needed (Maurer, Hothorn and Lehmacher, 1995). Of several calibration
    seeds the worst counts. On fewer than 3.69/margin images no width is safe, since a break in a margin of the images
    could go unseen. A width that was not run is passed over, since which widths were run was decided before their
    results were known; `not_run` names it. A width without an interval ends the sequence. `failed` is the width that
    ended it, `stopped` the reason. `not_tested` names widths outside the sequence, such as 7 and 16 bits.
    """
    groups = curves.groupby(CURVE, sort=False)
    return pd.DataFrame([_lowest(names, own, margin) for names, own in groups])


def _lowest(names: tuple[Hashable, ...], own: pd.DataFrame, margin: float) -> dict[str, object]:
    safe, failed, stopped, skipped = None, None, "all widths that were run are safe", []
    worst = own.sort_values("drop_high", na_position="last").drop_duplicates("width", keep="last").set_index("width")
    for width in SEQUENCE:
        if width not in worst.index:
            skipped.append(width)
            continue
        row = worst.loc[width].to_dict()
        high, base = float(row["drop_high"]), abs(float(row["baseline"]))
        if np.isnan(high) or not base > 0:
            failed = width
            stopped = f"{width} bits: {'no outputs, so no interval' if base > 0 else 'no baseline above 0'}"
            break
        if row.get("images", np.inf) < fewest_images(margin) and not float(row["drop"]) > margin * base:
            failed, stopped = width, too_few(int(row["images"]), margin)
            break
        if high > margin * base:
            failed, stopped = width, f"{width} bits: drop up to {100 * high / base:.1f} %"
            break
        safe = width
    outside = sorted(set(own["width"]) - set(SEQUENCE), reverse=True)
    return {**dict(zip(CURVE, names, strict=True)), "lowest_safe": safe, "margin": margin, "failed": failed,
            "stopped": stopped, "not_run": ", ".join(map(str, skipped)),
            "not_tested": ", ".join(f"{w:g}" for w in outside)}  # fmt: skip


def too_few(images: int, margin: float) -> str:
    """Why no width is safe on so few images. margin: a share of the baseline."""
    return (
        f"a break in {unseen(images):.1%} of the images could go unseen on {images} images; "
        f"{fewest_images(margin)} show a loss of {100 * margin:g} %"
    )


def extending(safe: pd.DataFrame) -> pd.DataFrame:
    """The widths that continue the fixed sequence of each curve: `setting, parts, line, widths, why`.

    safe: as `lowest_safe` gives it. The widths are those that were passed over between the last safe width and the
    first unsafe one; where there is no unsafe one, the next width below the last safe one. A curve that cannot be
    continued (2 bits are safe, 8 bits are not, or its cells have no intervals) is left out.
    """
    rows = [{**{c: r[c] for c in CURVE}, **more} for r in safe.to_dict("records") if (more := _extension(r))]
    return pd.DataFrame(rows, columns=[*CURVE, "widths", "why"])


def _extension(row: Row) -> dict[str, object] | None:
    lowest, failed = (None if pd.isna(v := number(row, c)) else int(v) for c in ("lowest_safe", "failed"))
    skipped = [int(w) for w in str(row["not_run"]).split(", ") if w]
    if failed is not None and "drop up to" not in str(row["stopped"]):
        return None
    if failed is not None:
        widths = [w for w in skipped if failed < w < (lowest or np.inf)]
        why = (
            f"between {lowest} bits, safe, and {failed}, not shown to be"
            if lowest
            else f"{failed} bits are not shown to be safe"
        )
    elif lowest is None:
        return None
    else:
        widths = [w for w in SEQUENCE if w < lowest][:1]
        why = f"{lowest} bits are still safe"
    return {"widths": widths, "why": why} if widths else None
