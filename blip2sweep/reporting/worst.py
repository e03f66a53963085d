"""The samples that lost most: the output of the baseline, that of the cell, and how much worse it is."""

from __future__ import annotations

import numpy as np
import pandas as pd

from blip2sweep.reporting.source import Source
from blip2sweep.results.predictions import predictions_or_none, read_predictions, stem

COLUMNS = ["recipe", "image_id", "id", "baseline", "output", "drop", "key"]


def worst_samples(source: Source, most: int = 100, per_cell: int = 3) -> pd.DataFrame:
    """At most `per_cell` samples of a cell and `most` in all, worst first, with the columns COLUMNS.

    Drops are in the main metric of one sample. Samples that lost nothing are left out.
    """
    draws = source.draws
    if draws is None:
        return pd.DataFrame(columns=COLUMNS)
    own = source.cells[source.cells["key"].isin(list(draws.arrays)) & (source.cells["part"] != "none")]
    base = source.cells[source.cells["key"] == draws.baseline].iloc[0]
    before = read_predictions(source.output_dir, stem(base["key"], base["predictions"]))
    level = draws.by_sample(draws.baseline)
    lost = {k: draws.metric.drop(level, draws.by_sample(k)) for k in own["key"]}
    worst = {key: np.argsort(-np.nan_to_num(d))[:per_cell] for key, d in lost.items()}
    found = [(float(lost[key][i]), key, int(i)) for key, rows in worst.items() for i in rows if lost[key][i] > 0]
    by_key = {r["key"]: r for r in own.to_dict("records")}
    listed = []
    for drop, key, i in sorted(found, reverse=True)[:most]:
        after = predictions_or_none(source.output_dir, stem(key, by_key[key]["predictions"]))
        if after is None:
            continue
        place = i if after.id == before.id else after.id.index(before.id[i])  # of a cell that stopped
        was, now = source.readable_outputs(before)[i], source.readable_outputs(after)[place]
        listed.append([by_key[key]["recipe"], before.image_id[i], before.id[i], was, now, drop, key])
    return pd.DataFrame(listed, columns=COLUMNS)
