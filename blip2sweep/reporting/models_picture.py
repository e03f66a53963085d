"""The comparison of models as a picture: a panel a role, a line a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from blip2sweep.analysis.models import models_of
from blip2sweep.reporting.comparison import drawn
from blip2sweep.reporting.dropoff_roles import label as text
from blip2sweep.reporting.metric_text import text_of_label
from blip2sweep.reporting.panels import errors, panels, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture


def draw_models(picture: Picture, data: pd.DataFrame, metric: str) -> None:
    """Draw the setting with most rows. metric: its label."""
    shown = drawn(data)
    if shown.empty:
        picture.text(0.5, 0.5, "no role was compressed in two models", ha="center")
        return
    setting = shown["setting"].value_counts().index[0]
    own, models = shown[shown["setting"] == setting], models_of(data)
    widths = sorted(own["width"].unique(), reverse=True)
    ends = pd.concat([own["drop"], own["drop_low"], own["drop_high"], pd.Series([0.0])])
    room = 0.04 * (ends.max() - ends.min()) or 1.0
    for role, axis in panels(picture, list(own["role"].unique())):
        axis.axhline(0, color="0.5", linewidth=1, linestyle="--")
        for model, line in own[own["role"] == role].groupby("model", sort=False):
            i = models.index(str(model))
            x = line["width"].map(widths.index).to_numpy(float) + 0.06 * (i - (len(models) - 1) / 2)
            axis.errorbar(
                x,
                line["drop"],
                yerr=errors(line, "drop", "drop_low", "drop_high"),
                capsize=2,
                label=text(str(model)),
                **style(i),
            )
        axis.set_xticks(range(len(widths)), [f"{w:g}" for w in widths])
        axis.set(xlabel="bits", xlim=(-0.4, len(widths) - 0.6), ylim=(ends.max() + room, ends.min() - room))
        axis.set_ylabel(f"{text_of_label(metric).worse}, % of own {metric}, {setting}")
