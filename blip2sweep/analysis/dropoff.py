"""Drop-off: the metric against width, the lowest width that is safe, and the widths that would say more."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from blip2sweep.analysis.bands import max_t
from blip2sweep.analysis.draws import Draws
from blip2sweep.metrics import METRICS, Kept, fewest_images, unseen

SEQUENCE = (8, 6, 5, 4, 3, 2)
MARGIN = 0.02  # of the baseline
LINE = ["setting", "parts", "line"]


def dropoff(cells: pd.DataFrame, metric: str, draws: Draws | None) -> pd.DataFrame:
    """One row a cell of one width: what is left of the metric in % of the baseline, drop with pointwise interval and band.

    `retained` is below 100 where a cell is worse; of a metric that is better when lower it is above, as its value is.
    `images`: on how many it was scored, `changed`: on how many of them it differs from the baseline.

    cells: as `comparable` gives them, or some of them. The band is simultaneous over all cells given that share a setting.
    Cells without outputs (imported scores) have NaN intervals; where the baseline is 0 nothing can be retained: NaN.
    A line has one row a width, that of the lowest calibration `seed`; rows of other seeds are its points: `point`.
    """
    rows = cells[cells["width"].notna()].copy()
    wanted = ["key", "setting", "line", "parts", "width", "seed", "bits_per_weight", metric, f"baseline_{metric}"]
    out = rows[wanted].rename(columns={metric: "value", f"baseline_{metric}": "baseline"})
    for end in ("", "_low", "_high"):
        out[f"drop{end}"] = rows.get(f"drop_{metric}{end}", pd.Series(np.nan, index=rows.index))
    out["noise"] = rows.get(f"noise_{metric}", pd.Series(np.nan, index=rows.index))
    level = out["baseline"].abs().where(out["baseline"] != 0)
    for name, column in (("images", "images"), ("changed", f"changed_{metric}")):
        out[name] = rows.get(column, pd.Series(np.nan, index=rows.index))
    out["retained"] = 100 * METRICS[metric].retained(level, out["drop"])
    out["retained_low"], out["retained_high"] = _retained_ends(out, draws)
    out["band_low"], out["band_high"] = _bands(out, draws)
    out = out.sort_values([*LINE, "width", "seed"]).reset_index(drop=True)
    return out.assign(point=out.duplicated([*LINE, "width"]))


def _retained_ends(out: pd.DataFrame, draws: Draws | None) -> tuple[pd.Series, pd.Series]:
    """95 % of the ratio of cell and baseline: never less than nothing."""
    found: dict[str, Kept] = {}
    if draws is not None:
        found = {k: draws.kept(k) for k in set(out["key"]).intersection(draws.arrays)}
    low, high = (out["key"].map({k: 100 * ends[i] for k, ends in found.items()}).astype(float) for i in (1, 2))
    return low, high


def _bands(out: pd.DataFrame, draws: Draws | None) -> tuple[pd.Series, pd.Series]:
    low, high = (pd.Series(np.nan, index=out.index) for _ in range(2))
    if draws is None:
        return low, high
    for _, family in out[out["key"].isin(list(draws.arrays))].groupby("setting"):
        keys = list(family["key"])
        least = np.array([draws.least(k) for k in keys])
        ends = max_t(family["drop"].to_numpy(float), draws.drops(keys), images=draws.images.count, least=least)
        low[family.index], high[family.index] = ends
    return low, high


def lowest_safe(curves: pd.DataFrame, margin: float = MARGIN) -> pd.DataFrame:
    """The lowest safe width of each setting and line.

    Tested 8 → 6 → 5 → 4 → 3 → 2 in fixed sequence, so that no correction for the number of widths is needed (Maurer,
    Hothorn and Lehmacher, 1995): a width is safe when the upper end of the drop's 95 % interval, a one-sided 97.5 % bound, is
    below margin × baseline, and all wider ones that were run were safe. Of several calibration seeds the worst must be.
    On fewer than 3.69/margin images no width is: a break in a margin of the images could have gone unseen.
    A width that was not run is passed over, since which widths were run was decided before their results were seen; it is
    named in `not_run`. One without an interval ends the sequence; `stopped` says why it ended, `failed` at which width.
    Widths outside the sequence, such as 7 and 16 bits, are not tested; they are named in `not_tested`.
    """
    groups = curves.groupby(LINE, sort=False)
    return pd.DataFrame([_lowest(names, own, margin) for names, own in groups])


def _lowest(names: Any, own: pd.DataFrame, margin: float) -> dict[str, Any]:
    safe, failed, stopped, skipped = None, None, "all widths that were run are safe", []
    worst = own.sort_values("drop_high", na_position="last").drop_duplicates("width", keep="last").set_index("width")
    for width in SEQUENCE:
        if width not in worst.index:
            skipped.append(width)
            continue
        row = worst.loc[width].to_dict()
        high, base = float(row["drop_high"]), abs(float(row["baseline"]))
        if np.isnan(high) or not base > 0:
            failed, stopped = (
                width,
                f"{width} bits: {'no outputs, so no interval' if base > 0 else 'no baseline above 0'}",
            )
            break
        if row.get("images", np.inf) < fewest_images(margin) and not float(row["drop"]) > margin * base:
            failed, stopped = width, too_few(int(row["images"]), margin)
            break
        if high > margin * base:
            failed, stopped = width, f"{width} bits: drop up to {100 * high / base:.1f} %"
            break
        safe = width
    outside = sorted(set(own["width"]) - set(SEQUENCE), reverse=True)
    return {**dict(zip(LINE, names, strict=True)), "lowest_safe": safe, "margin": margin, "failed": failed,
            "stopped": stopped, "not_run": ", ".join(map(str, skipped)),
            "not_tested": ", ".join(f"{w:g}" for w in outside)}  # fmt: skip


def too_few(images: int, margin: float) -> str:
    """Why nothing is safe on so few images."""
    return (
        f"a break in {unseen(images):.1%} of the images could go unseen on {images} images; "
        f"{fewest_images(margin)} show a loss of {100 * margin:g} %"
    )


def extending(safe: pd.DataFrame) -> pd.DataFrame:
    """The widths that would carry each line's fixed sequence on: `setting, parts, line, widths, why`.

    Between the last safe width and the first that is not, those that were passed over; else the next below the last. A line
    that cannot be carried on (2 bits are safe, 8 are not, or its cells have no intervals) is left out.
    """
    rows = [{**{c: r[c] for c in LINE}, **more} for r in safe.to_dict("records") if (more := _extension(r))]
    return pd.DataFrame(rows, columns=[*LINE, "widths", "why"])


def _extension(row: dict[Any, Any]) -> dict[str, Any] | None:
    lowest, failed = (None if pd.isna(row[c]) else int(row[c]) for c in ("lowest_safe", "failed"))
    skipped = [int(w) for w in str(row["not_run"]).split(", ") if w]
    if failed is not None and "drop up to" not in row["stopped"]:
        return None
    if failed is not None:
        widths = [w for w in skipped if failed < w < (lowest or np.inf)]
        why = f"between {lowest} bits, safe, and {failed}, not" if lowest else f"{failed} bits are not safe"
    elif lowest is None:
        return None
    else:
        widths = [w for w in SEQUENCE if w < lowest][:1]
        why = f"{lowest} bits are still safe"
    return {"widths": widths, "why": why} if widths else None
