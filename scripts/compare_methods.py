"""Methods side by side, from a sweep's results: each one's loss, and its paired difference from round to nearest.

    python -m blip2sweep -m quant=rtn,mse,hqq,gptq,awq,awq_prescale quant.bits=3 part=vit,qformer,llm,all \\
        task=shapes_caption,shapes_vqa output_dir=methods
    python scripts/compare_methods.py methods >> table.md

Cells are compared where round to nearest's own drop excludes zero: elsewhere there is nothing to win back. Intervals are
95 %, paired over the same resamples of images. A difference below zero: better than round to nearest.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from blip2sweep.metrics import METRICS, images, paired_drop
from blip2sweep.results.committed import predictions_name
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.predictions import read_predictions, read_statistics

OF_TASK = {"shapes_caption": ("nll", "cider"), "shapes_vqa": ("nll", "vqa_accuracy")}


class Cell:
    """One cell's statistics."""

    def __init__(self, output_dir: Path, ledger: Ledger, key: str) -> None:
        result = ledger.attempts[key].result
        assert result is not None
        name = predictions_name(result)
        self.statistics, self.images = read_statistics(output_dir, name), read_predictions(output_dir, name).image_id

    def against(self, other: Cell, name: str) -> str:
        """How much worse than the other, with its interval."""
        metric = METRICS[name]
        mine, theirs = (x.statistics[metric.statistic] for x in (self, other))
        found = paired_drop(metric, theirs, mine, images(self.images))
        return f"{found.drop:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"

    def excludes_zero(self, other: Cell, name: str) -> bool:
        metric = METRICS[name]
        mine, theirs = (x.statistics[metric.statistic] for x in (self, other))
        return paired_drop(metric, theirs, mine, images(self.images)).low > 0


def rows(output_dir: Path) -> Iterator[list[str]]:
    """part, method, and for each metric the loss against full precision and the difference from round to nearest."""
    table, ledger = pd.read_parquet(output_dir / "table.parquet"), Ledger(output_dir).refresh()
    for (task, part), own in table[table.method.notna()].groupby(["task", "part"], sort=False):
        cells: dict[Any, Cell] = {m: Cell(output_dir, ledger, k) for m, k in zip(own.method, own.key, strict=True)}
        base = Cell(output_dir, ledger, own.baseline.iloc[0])
        for name in OF_TASK[str(task)]:
            if not cells["rtn"].excludes_zero(base, name):
                yield [
                    str(part),
                    name,
                    "rtn",
                    cells["rtn"].against(base, name),
                    "its interval holds zero: not compared",
                ]
                continue
            for method, cell in cells.items():
                versus = "" if method == "rtn" else cell.against(cells["rtn"], name)
                yield [str(part), name, str(method), cell.against(base, name), versus]


def main(output_dir: Path) -> None:
    print("| part | metric | method | loss | against rtn |")
    print("|---|---|---|---|---|")
    for row in rows(output_dir):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
