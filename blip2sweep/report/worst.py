"""The samples that lost most: what the baseline said, what the cell says, how much worse that is."""

from __future__ import annotations

import numpy as np
import pandas as pd

from blip2sweep.records import read_predictions, stem
from blip2sweep.report.source import Source

COLUMNS = ["recipe", "image_id", "id", "baseline", "output", "drop", "key"]


def worst_samples(source: Source, most: int = 100, per_cell: int = 3) -> pd.DataFrame:
    """At most `per_cell` samples of a cell and `most` in all, worst first. Drops are in the main metric, per sample."""
    draws = source.draws
    if draws is None:
        return pd.DataFrame(columns=COLUMNS)
    own = source.cells[source.cells["key"].isin(list(draws.arrays)) & (source.cells["part"] != "none")]
    base = source.cells[source.cells["key"] == draws.baseline].iloc[0]
    before = read_predictions(source.output_dir, stem(base["key"], base["predictions"]))
    with np.errstate(all="ignore"):
        level = draws.metric.finish(draws.arrays[draws.baseline])
        lost = {k: draws.sign * (level - draws.metric.finish(draws.arrays[k])) for k in own["key"]}
    found = [(float(d[i]), key, int(i)) for key, d in lost.items() for i in np.argsort(-np.nan_to_num(d))[:per_cell]]
    rows = {r["key"]: r for r in own.to_dict("records")}
    listed = []
    for drop, key, i in sorted(found, reverse=True)[:most]:
        said = read_predictions(source.output_dir, stem(key, rows[key]["predictions"]))
        listed.append([rows[key]["recipe"], before.image_id[i], before.id[i], before.text[i], said.text[i], drop, key])
    return pd.DataFrame(listed, columns=COLUMNS)
