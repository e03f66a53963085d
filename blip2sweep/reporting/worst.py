"""The samples that lost most: what the baseline said, what the cell says, how much worse that is."""

from __future__ import annotations

import numpy as np
import pandas as pd

from blip2sweep.reporting.source import Source
from blip2sweep.results.predictions import predictions_or_none, read_predictions, stem

COLUMNS = ["recipe", "image_id", "id", "baseline", "output", "drop", "key"]


def worst_samples(source: Source, most: int = 100, per_cell: int = 3) -> pd.DataFrame:
    """At most `per_cell` samples of a cell and `most` in all, worst first. Drops are in the main metric, per sample; a
    sample that lost nothing is not among them."""
    draws = source.draws
    if draws is None:
        return pd.DataFrame(columns=COLUMNS)
    own = source.cells[source.cells["key"].isin(list(draws.arrays)) & (source.cells["part"] != "none")]
    base = source.cells[source.cells["key"] == draws.baseline].iloc[0]
    before = read_predictions(source.output_dir, stem(base["key"], base["predictions"]))
    level = draws.metric.each(draws.arrays[draws.baseline])
    lost = {k: draws.metric.drop(level, draws.metric.each(draws.arrays[k])) for k in own["key"]}
    worst = {key: np.argsort(-np.nan_to_num(d))[:per_cell] for key, d in lost.items()}
    found = [(float(lost[key][i]), key, int(i)) for key, rows in worst.items() for i in rows if lost[key][i] > 0]
    told = {r["key"]: r for r in own.to_dict("records")}
    listed = []
    for drop, key, i in sorted(found, reverse=True)[:most]:
        said = predictions_or_none(source.output_dir, stem(key, told[key]["predictions"]))
        if said is None:
            continue
        was, now = source.words(before)[i], source.words(said)[i]
        listed.append([told[key]["recipe"], before.image_id[i], before.id[i], was, now, drop, key])
    return pd.DataFrame(listed, columns=COLUMNS)
