"""The table of a report's cell browser: finished cells, what they lost, and how large they are."""

from __future__ import annotations

import pandas as pd

from blip2sweep.analysis.stopped import STOPPED, stopped_at
from blip2sweep.reporting.back_ends import origins
from blip2sweep.reporting.metric_text import metric_text
from blip2sweep.reporting.source import Source


def cell_table(source: Source) -> pd.DataFrame:
    """The table of the cell browser: finished cells and their drops."""
    m = source.metric
    wanted = {"parts": "parts", "setting": "method", "width": "bits", "recipe": "recipe", m: m, f"drop_{m}": metric_text(m).worse,
              f"drop_{m}_low": "low", f"drop_{m}_high": "high", STOPPED: "stopped (low and high have 99.5 %)", f"noise_seed_{m}": "noise, seed",
              f"noise_arithmetic_{m}": "noise, arithmetic", **_further_columns(source), "bits_per_weight": "bits/weight",
              "noop_configs": "configs with no-ops", "key": "key"}  # fmt: skip
    cells = source.cells.assign(stopped=[stopped_at(r) for r in source.cells.to_dict("records")])
    wanted = {c: name for c, name in wanted.items() if c != STOPPED or (cells[STOPPED] != "").any()}
    told = cells[[c for c in wanted if c in cells]].rename(columns=wanted)
    return told.assign(**{"from": found}) if any(found := origins(source.cells)) else told


def _further_columns(source: Source) -> dict[str, str]:
    """The columns of the cell browser on further steps; none where no cell has one. The drop before them is against the
    baseline."""
    if not (source.cells["further"] != "").any():
        return {}
    m, metric = source.metric, metric_text(source.metric)
    against = f"{metric.worse} against control"
    return {"kind": "kind", f"drop_control_{m}": against, f"drop_control_{m}_low": "low, control", f"drop_control_{m}_high": "high, control",
            "params": "parameters", "gflops": "GFLOP", "model_bytes": "bytes"}  # fmt: skip
