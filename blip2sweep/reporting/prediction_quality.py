"""How well the predictor would do on cells that were not run, as a sentence."""

from __future__ import annotations

import numpy as np

from blip2sweep.analysis.cells import one_seed
from blip2sweep.analysis.knapsack import FEWEST_CELLS, problems
from blip2sweep.analysis.layer_groups import noise
from blip2sweep.analysis.predict import cross_validated, predictable
from blip2sweep.analysis.stopped import verdicts_line
from blip2sweep.errors import UserError
from blip2sweep.reporting.metric_text import metric_text
from blip2sweep.reporting.source import Source


def model_quality(source: Source) -> str | None:
    """A sentence with the cross-validated error of the predictor and of the two simple ones that it has to beat.

    None where nothing can be fitted, or where there are too few cells to hold some out.
    """
    if source.anatomy is None:
        return None
    try:
        cells = one_seed(
            predictable(source.cells, source.metric)
        )  # a cell of another seed in the fit would give the answer away
        found = max(problems(cells, source.anatomy), key=lambda p: len(p.cells))
    except UserError:
        return None
    if len(found.cells) < 2 * FEWEST_CELLS:
        return None
    # The baseline and at most 200 others, at random since the first cells of a sweep are often all of one kind.
    rows = np.sort(np.random.default_rng(0).permutation(np.arange(1, len(found.cells)))[:200])
    own, widths = found.cells.iloc[[0, *rows]], found.groups.widths[[0, *rows]]
    base = float(own.loc[own["part"] == "none", source.metric].iloc[0])
    errors = cross_validated(widths, noise(widths), own[source.metric].to_numpy(float), base, found.groups.families)
    listed = ", ".join(f"{name} {error:.3f}" for name, error in errors.items())
    left = verdicts_line(source.cells, "it")
    more = f" {left[0].upper()}{left[1:]}." if left else ""
    return f"Predicting cells that were not run with {found.setting}, mean absolute error in {metric_text(source.metric).label} (5-fold): {listed}.{more}"
