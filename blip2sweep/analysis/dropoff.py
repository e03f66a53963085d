"""Drop-off: the metric against width, and the lowest width that is safe."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from blip2sweep.analysis.bands import max_t
from blip2sweep.analysis.draws import Draws

SEQUENCE = (8, 6, 5, 4, 3, 2)
MARGIN = 0.02  # of the baseline


def dropoff(cells: pd.DataFrame, metric: str, draws: Draws | None) -> pd.DataFrame:
    """One row a cell of one width: retained metric in % of the baseline, drop with pointwise interval and band.

    cells: as `comparable` gives them, or some of them. The band is simultaneous over all cells given that share a setting.
    Cells without outputs (imported scores) have NaN intervals.
    """
    rows = cells[cells["width"].notna()].copy()
    wanted = ["key", "setting", "line", "parts", "width", "bits_per_weight", metric, f"baseline_{metric}"]
    out = rows[wanted].rename(columns={metric: "value", f"baseline_{metric}": "baseline"})
    for end in ("", "_low", "_high"):
        out[f"drop{end}"] = rows.get(f"drop_{metric}{end}", pd.Series(np.nan, index=rows.index))
    out["noise"] = rows.get(f"noise_{metric}", pd.Series(np.nan, index=rows.index))
    out["retained"] = 100 * (1 - out["drop"] / out["baseline"].abs())
    out["retained_low"], out["retained_high"] = (
        100 * (1 - out[f"drop{end}"] / out["baseline"].abs()) for end in ("_high", "_low")
    )
    out["band_low"], out["band_high"] = _bands(out, draws)
    return out.sort_values(["setting", "parts", "line", "width"]).reset_index(drop=True)


def _bands(out: pd.DataFrame, draws: Draws | None) -> tuple[pd.Series, pd.Series]:
    low, high = (pd.Series(np.nan, index=out.index) for _ in range(2))
    if draws is None:
        return low, high
    for _, family in out[out["key"].isin(list(draws.arrays))].groupby("setting"):
        ends = max_t(family["drop"].to_numpy(float), draws.drops(list(family["key"])))
        low[family.index], high[family.index] = ends
    return low, high


def lowest_safe(curves: pd.DataFrame, margin: float = MARGIN) -> pd.DataFrame:
    """The lowest safe width of each setting and line.

    Tested 8 → 6 → 5 → 4 → 3 → 2 in fixed sequence, so that no correction for the number of widths is needed (Maurer,
    Hothorn and Lehmacher, 1995): a width is safe when the upper end of the drop's 95 % interval, a one-sided 97.5 % bound, is
    below margin × baseline, and all wider ones that were run were safe. A width that was not run, or has no interval,
    ends the sequence when it lies between two that were run and is not known; the column `stopped` says why it ended.
    """
    groups = curves.groupby(["setting", "parts", "line"], sort=False)
    return pd.DataFrame([_lowest(names, own, margin) for names, own in groups])


def _lowest(names: Any, own: pd.DataFrame, margin: float) -> dict[str, Any]:
    safe, stopped, skipped = None, "all widths that were run are safe", []
    known = own.drop_duplicates("width").set_index("width")
    for width in SEQUENCE:
        if width not in known.index:
            skipped.append(width)
            continue
        row = known.loc[width]
        if np.isnan(row["drop_high"]):
            stopped = f"{width} bits: no outputs, so no interval"
            break
        if row["drop_high"] > margin * abs(row["baseline"]):
            stopped = f"{width} bits: drop up to {100 * row['drop_high'] / abs(row['baseline']):.1f} %"
            break
        safe = width
    told = dict(zip(("setting", "parts", "line"), names, strict=True))
    return {**told, "lowest_safe": safe, "margin": margin, "stopped": stopped, "not_run": ", ".join(map(str, skipped))}
