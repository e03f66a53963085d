"""Notes on what few images cannot show, and on cells that changed few of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from blip2sweep.analysis.dropoff import MARGIN, too_few
from blip2sweep.analysis.recipes import entries
from blip2sweep.analysis.steps import quantizers, untrained
from blip2sweep.metrics import fewest_images, unseen

FEWEST_BETTER, SHARE_BETTER = 3, 0.1
FEW_CHANGED = 10  # images; below that, images that were not drawn are most of the uncertainty


def unseen_notes(table: pd.DataFrame, metrics: Sequence[str]) -> Iterator[str]:
    """The notes on a table, one line each: few changed images, no safe width, a baseline that many cells beat.

    table: of cells as `build_table` gives them. A control of which no training step was kept is the baseline by
    construction, so that it changed no image hides nothing.
    """
    for metric in (m for m in metrics if f"changed_{m}" in table):
        own = table[(table["part"] != "none") & table[f"changed_{metric}"].notna() & ~untrained(table)[1]]
        if len(own):
            few, n = own[own[f"changed_{metric}"] < FEW_CHANGED], int(own["images"].max())  # fewer where cells stopped
            which = f"{metric}: " if len(metrics) > 1 else ""
            lines = [*_few_notes(few, metric, n, _has_widths(own)), *filter(None, [baseline_beaten(table, metric)])]
            yield from (which + line for line in lines)


def _has_widths(cells: pd.DataFrame) -> bool:
    """Whether some cell is quantized."""
    return "recipe_json" not in cells or any(quantizers(entries(str(r))) for r in cells["recipe_json"])


def _few_notes(few: pd.DataFrame, metric: str, n: int, widths: bool) -> Iterator[str]:
    if len(few):
        seen = int(few["images"].min())
        yield f"{_changed(few, f'changed_{metric}', seen)}: {unseen_share(seen)}"
    if widths and n < fewest_images(MARGIN):
        yield f"no width is called safe within {MARGIN:.0%}: {too_few(n, MARGIN)}"


def few_changed(curves: pd.DataFrame) -> str:
    """A sentence on the drop-off cells that changed few images; empty where there is none."""
    few = curves[curves["changed"] < FEW_CHANGED]
    if few.empty:
        return ""
    n = int(few["images"].min())
    note = _changed(few, "changed", n)
    return f" {note[0].upper()}{note[1:]}: {unseen_share(n)}."


def baseline_beaten(table: pd.DataFrame, metric: str) -> str | None:
    """A note on a baseline that many cells beat significantly: three, and one in ten of those with an interval."""
    if f"drop_{metric}_high" not in table:
        return None
    high = table.loc[_compressed(table), f"drop_{metric}_high"].dropna()
    better = int((high < 0).sum())
    if better < FEWEST_BETTER or better < SHARE_BETTER * len(high):
        return None
    return (
        f"{better} of {len(high)} cells are significantly better than the baseline in {metric}: no compression should be, so look at the "
        "baseline first (its prompt, generation settings and dtype) before any drop is believed"
    )


def _compressed(table: pd.DataFrame) -> pd.Series:
    """Whether rows are of compressed cells. Cells that were trained are left out, since training may beat the baseline."""
    trained = table["recover"].notna() if "recover" in table else pd.Series(False, index=table.index)
    return (table["part"] != "none") & ~trained


def _changed(few: pd.DataFrame, column: str, n: int) -> str:
    if len(few) == 1:
        return f"cell {few['key'].iloc[0]}: only {int(few[column].iloc[0])} of {n} images changed"
    return f"in {len(few)} cells fewer than {FEW_CHANGED} of {n} images changed"


def unseen_share(n: int) -> str:
    """What n images may have missed, as a clause."""
    return f"a break in up to {unseen(n):.1%} of the images could have gone unseen"
