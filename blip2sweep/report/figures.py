"""The data of every figure of the report: one frame each, written as CSV, drawn by the page and by matplotlib."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from blip2sweep.analysis.blocks import sensitivity
from blip2sweep.analysis.cells import headline
from blip2sweep.analysis.dropoff import dropoff
from blip2sweep.analysis.frontier import frontier
from blip2sweep.analysis.grid import width_grid
from blip2sweep.analysis.methods import matched
from blip2sweep.analysis.shapley import shapley_over_bits
from blip2sweep.report.source import Source

RUN = "python -m blip2sweep -m"
LABELS = {"cider": "CIDEr", "vqa_accuracy": "VQA accuracy", "nll": "NLL"}


@dataclass
class Figure:
    """One figure: its data, and what to run where there is nothing to draw."""

    name: str
    title: str
    caption: str
    data: pd.DataFrame
    missing: str

    @property
    def empty(self) -> bool:
        return self.data.empty


def label(source: Source) -> str:
    """The main metric as people write it."""
    return LABELS.get(source.metric, source.metric)


def figures(source: Source) -> list[Figure]:
    """The six figures of a paper and the 3-D view, in order."""
    return [
        _dropoff(source),
        _frontier(source),
        _blocks(source),
        _map(source),
        _shapley(source),
        _methods(source),
        _view3d(source),
    ]


def _dropoff(source: Source) -> Figure:
    data = dropoff(source.cells, source.metric, source.draws)
    main = set(headline(source.cells)["key"])
    data["headline"] = [k in main for k in data["key"]]
    caption = (
        f"{label(source)} kept, in % of the baseline, against the width of the layers touched. Bars: paired 95 % intervals "
        "over images; the grey band is the noise floor of half precision. One line a set of parts, a panel a method."
    )
    return Figure("dropoff", "Drop-off", caption, data, f"{RUN} quant.bits=2,3,4,6,8 part=vit,qformer,llm,all")


def _frontier(source: Source) -> Figure:
    data = frontier(source.cells, source.metric, source.draws)
    caption = (
        f"The most {label(source)} at a size. Cells are chosen on one half of the images and shown on the other. Hollow: "
        "not distinguishable from the baseline there. Size counts the whole model, 16 bits for what is left alone."
    )
    return Figure("frontier", "Frontier", caption, data, f"{RUN} part=all quant.bits=2,3,4,6,8")


def _blocks(source: Source) -> Figure:
    found = source.anatomy
    data = sensitivity(source.cells, source.metric, source.draws, found) if found else pd.DataFrame()
    caption = (
        f"What blocks cost in {label(source)} when they alone are quantized, and what sparing them gives back. Shaded: "
        "simultaneous 95 % band over the blocks."
    )
    return Figure("blocks", "Block sensitivity", caption, data, f"{RUN} +study=block_wise")


def _map(source: Source) -> Figure:
    data = width_grid(source.cells, source.metric)
    enough = len(data) > 1 and all(p in data and data[p].nunique() > 1 for p in ("vit", "llm"))
    caption = (
        f"Drop of {label(source)} by the width of each part (16: left alone). Hatched: the 95 % interval covers 0. "
        "Lines join equal whole-model bits per weight."
    )
    return Figure("map", "Interaction map", caption, data if enough else data.iloc[:0], f"{RUN} +study=part_wise")


def _shapley(source: Source) -> Figure:
    main = pd.concat([source.cells[source.cells["part"] == "none"], headline(source.cells)])
    data, refusals = shapley_over_bits(main, source.metric, source.draws)
    caption = (
        f"The drop of {label(source)} of all parts together, shared out: exact Shapley values. Their sum is the whole "
        "drop; the interaction is what the parts do together beyond the sum of each alone."
    )
    wanted = f"{RUN} quant.bits=3,4,8 part=vit,qformer,llm,vit+qformer,vit+llm,qformer+llm,all"
    return Figure(
        "shapley", "Contributions of the parts", caption, data, wanted + (f" ({refusals[0]})" if refusals else "")
    )


def _methods(source: Source) -> Figure:
    data = matched(source.cells, source.metric, source.draws)
    caption = (
        f"Gain in {label(source)} over RTN on matched cells: same layers, widths, task and samples, bits per weight "
        "within .02. Bars: paired 95 % intervals; one dot a calibration seed."
    )
    return Figure(
        "methods", "Methods at equal size", caption, data, f"{RUN} part=all quant=rtn,gptq,awq quant.bits=2,3,4"
    )


def _view3d(source: Source) -> Figure:
    cells = source.cells
    columns = [c for c in map(str, cells) if c.startswith("bits_") and not c.startswith("bits_per")][:3]
    data = cells[["key", "setting", "blocks", "layers", *columns, source.metric]].rename(
        columns={source.metric: "value"}
    )
    data[columns] = data[columns].fillna(16.0)
    caption = (
        "Every cell by the width of its parts (16: left alone), coloured by the metric, as in the published study."
    )
    return Figure("view3d", "All cells in 3-D", caption, data, f"{RUN} +study=part_wise")


def write_csvs(made: list[Figure], folder: str) -> list[str]:
    """One CSV a figure. Returns their paths."""
    from pathlib import Path

    from blip2sweep.store import write_atomic

    paths = []
    for figure in made:
        path = Path(folder) / f"{figure.name}.csv"
        write_atomic(path, figure.data.to_csv(index=False).encode())
        paths.append(str(path))
    return paths
