"""The figures of a report: one frame of data for each.

It is written as CSV, and drawn by the page and matplotlib.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from itertools import combinations

import pandas as pd

from blip2sweep.analysis.blocks import sensitivity
from blip2sweep.analysis.cells import entries, headline, quantized
from blip2sweep.analysis.dropoff import dropoff
from blip2sweep.analysis.frontier import COSTS, SIZES, frontier, over_all_kinds
from blip2sweep.analysis.grid import width_grid
from blip2sweep.analysis.methods import matched
from blip2sweep.analysis.prices import prices
from blip2sweep.analysis.recipes import part_names
from blip2sweep.analysis.shapley import shapley_over_bits
from blip2sweep.console.quoting import override
from blip2sweep.errors import UserError
from blip2sweep.reporting.figure import RUN, Figure, in_model_order, label, roles_of
from blip2sweep.reporting.interaction import CONNECTOR, layouts, why_not
from blip2sweep.reporting.metric_text import metric_text
from blip2sweep.reporting.prices import price_tables
from blip2sweep.reporting.rerun import context
from blip2sweep.reporting.source import Source
from blip2sweep.reporting.step_figures import step_figures
from blip2sweep.reporting.stopped_text import with_stopped

MOST_REFUSALS, MOST_TABLES = 3, 4
TIME = "latency_ms_median"


def figures(source: Source) -> list[Figure]:
    """The figures of a report in their order, the 3-D view last.

    Where cells have further steps, their figures come first, and those without data last.
    """
    made = [f(source) for f in (_dropoff, _frontier, _blocks, _map, _prices, _shapley, _methods, _view3d)]
    if further := step_figures(source):
        made = sorted([*further, *made], key=lambda f: f.empty)
    run = _run(source)
    return [replace(with_stopped(f, source.cells), missing=f"{run} {f.missing}") for f in made]


def _run(source: Source) -> str:
    """The beginning of a command whose cells can be compared with these: same model, task and samples."""
    base = source.cells[source.cells["part"] == "none"].iloc[0].to_dict()
    try:
        arguments = context(source, [], base)
    except UserError:  # the sweep varied something of which the rows have no column
        arguments = [
            *(override(k, str(base[k])) for k in ("model", "task")),
            override("output_dir", str(source.output_dir)),
        ]
    return f"{RUN} {shlex.join(arguments)}"


def _dropoff(source: Source) -> Figure:
    data = dropoff(source.cells, source.metric, source.draws)
    data, order = in_model_order(source, data, "parts"), part_names(source.cells)
    main = set(headline(source.cells)["key"])
    data["headline"] = [k in main for k in data["key"]]
    metric = metric_text(source.metric)
    floor = "; the grey band is the noise floor of half precision" if data["noise"].notna().any() else ""
    kept = "kept, in % of the baseline," if metric.higher_is_better else "in % of the baseline (higher is worse),"
    caption = (
        f"{metric.label} {kept} against the width of the layers touched. Bars: paired 95 % intervals "
        f"over images{floor}. One line a set of parts, a panel a method."
    )
    return Figure("dropoff", "Drop-off", caption, data, f"quant.bits=2,3,4,6,8 part={','.join(order)},all")


def _frontier(source: Source) -> Figure:
    cells, draws = source.cells, source.draws
    known = [s for s in SIZES if s in cells and cells.loc[cells["part"] != "none", s].notna().any()]
    several = bool((cells["further"] != "").any())
    known += [s for s in COSTS if (several or s == TIME) and s in cells and _told(cells, s)]
    of = over_all_kinds if several else frontier
    made = [of(_by_device(cells, size), source.metric, draws, size).assign(by=size) for size in known]
    data = pd.concat(made, ignore_index=True) if made else pd.DataFrame()
    return Figure("frontier", "Frontier", _frontier_caption(source, data), data, "part=all quant.bits=2,3,4,6,8")


def _told(cells: pd.DataFrame, size: str) -> bool:
    """Whether compressed cells have it, and not all cells the same."""
    return cells[size].nunique() > 1 and bool(cells.loc[cells["part"] != "none", size].notna().any())


def _by_device(cells: pd.DataFrame, size: str) -> pd.DataFrame:
    """The cells with their device in the setting, where times are of several: a time is compared on its own device."""
    if size != TIME or "latency_device" not in cells or cells["latency_device"].nunique() < 2:
        return cells
    return cells.assign(setting=cells["setting"] + " on " + cells["latency_device"].map(str))


def _frontier_caption(source: Source, data: pd.DataFrame) -> str:
    """The caption: which images chose cells, what the markers mean, and which cells do not compete."""
    stored = source.cells.loc[source.cells["part"] == "none", "stored"].iloc[0]
    size = f"Size counts the whole model as it is written, what is left alone in {stored}."
    text = f"{metric_text(source.metric).most} at a size. {size} "
    if data.empty or not data["held_out"].any():
        return text + (
            "These scores came without outputs, so cells were chosen on the numbers that are shown: the best of many looks "
            "better than it is. Hollow with a dot: no interval, so nothing is known of its difference to the baseline."
        )
    touched = source.cells[source.cells["part"] != "none"]
    if (source.cells["further"] != "").any():
        text += "A line a kind of compression; the broad one is the frontier over all kinds. "
    out = int((~touched["key"].isin(list(source.draws.arrays if source.draws else ()))).sum())
    left = f" {out} of {len(touched)} cells have no outputs and are left out." if out else ""
    return text + (
        "Cells are chosen on one half of the images and shown on the other. Hollow: not distinguishable from the "
        f"baseline there.{left}"
    )


def _blocks(source: Source) -> Figure:
    found = source.anatomy
    data = sensitivity(source.cells, source.metric, source.draws, found) if found else pd.DataFrame()
    if len(data):
        data = in_model_order(source, data, "part")
    caption = (
        f"What blocks cost in {label(source)} when they alone are quantized, and what sparing them gives back. Shaded: "
        "simultaneous 95 % band over the blocks."
    )
    return Figure("blocks", "Block sensitivity", caption, data, "+study=block_wise")


def _map(source: Source) -> Figure:
    data = width_grid(source.cells, source.metric)
    parts = part_names(source.cells)
    found = layouts(data, parts, roles_of(source))
    metric = metric_text(source.metric)
    caption = (
        f"{metric.worse.capitalize()} of {metric.label} by the width of each part (16: left alone). Hatched: the 95 % interval covers 0. "
        "Lines join equal whole-model bits per weight."
    )
    missing = "+study=part_wise"
    if not found:
        return Figure("map", "Interaction map", caption, data.iloc[:0], missing, why_not(data, parts))
    return Figure("map", "Interaction map", caption, data, missing, layouts=found)


def _prices(source: Source) -> Figure:
    data = prices(source.cells, source.metric, lambda keys: source.draws)
    metric = metric_text(source.metric)
    caption = (
        f"What one width less of one part costs in {metric.label} and saves, with paired 95 % intervals; a price only where the "
        f"{metric.worse} is significant. The curve is the ladder from full precision, the least {metric.worse} for its size first "
        "(a step may skip widths), or each part by itself where no two were compressed together."
    )
    table = "".join(p.html(source.output_dir) for p in price_tables(source, data, most=MOST_TABLES))
    roles = roles_of(source)
    few = {part: "4,none" if roles.get(part) == CONNECTOR else "3,4,8,none" for part in part_names(source.cells)}
    wanted = " ".join(["part=all", *(f"per_part.{part}.bits={widths}" for part, widths in few.items())])
    return Figure("prices", "What the next bits cost", caption, data, wanted, table=table)


def _shapley(source: Source) -> Figure:
    main = pd.concat([source.cells[source.cells["part"] == "none"], headline(source.cells)])
    data, refusals = shapley_over_bits(main, source.metric, source.draws)
    metric = metric_text(source.metric)
    caption = (
        f"Who is to blame for the {metric.worse} of {metric.label} of one recipe: that of all parts together at a width, shared out in "
        f"{metric.label} by exact Shapley values{_range(data)}. Their sum is the whole {metric.worse}; the interaction is what the parts "
        "do together beyond the sum of each alone. At other widths the shares are others; what to narrow next is told by prices."
    )
    more = f"; and {len(refusals) - MOST_REFUSALS} more" if len(refusals) > MOST_REFUSALS else ""
    left = f"{'; '.join(refusals[:MOST_REFUSALS])}{more}"
    parts = part_names(source.cells)
    unions = ["+".join(some) for n in range(1, len(parts)) for some in combinations(parts, n)]
    wanted = f"quant.bits=2,3,4,8 part={','.join([*unions, 'all'])}"
    if data.empty:
        return Figure("shapley", "Who is to blame for a drop", caption, data, wanted, f" {left}." if left else "")
    caption += f" Left out: {left}." if left else ""
    return Figure("shapley", "Who is to blame for a drop", caption, data, wanted)


def _range(data: pd.DataFrame) -> str:
    """The widths of these rows, as a clause."""
    return f", at {', '.join(f'{w:g}' for w in sorted(data['width'].unique()))} bits" if len(data) else ""


def _methods(source: Source) -> Figure:
    data = matched(source.cells, source.metric, source.draws)
    if len(data):
        recipes = source.cells.set_index("key")["recipe_json"]
        data = data.assign(label=[_label(r["width"], str(recipes[r["key"]])) for r in data.to_dict("records")])
    gain = metric_text(source.metric).gain
    caption = (
        f"{gain[0].upper()}{gain[1:]} on matched cells: same layers, widths, task and samples, bits per weight "
        "within .02. Bars: paired 95 % intervals; one dot a calibration seed."
    )
    return Figure("methods", "Methods at equal size", caption, data, "part=all quant=rtn,gptq,awq quant.bits=2,3,4")


def _label(width: float, recipe_json: str) -> str:
    """What a matched row compares: `vision + language 4 bits`, or the width of each where they differ."""
    recipe = entries(recipe_json)
    places = [" ".join(w for w in str(e["target"]).split(":") if w != "all") for e in recipe]
    if width == width:
        return f"{' + '.join(places)} {width:g} bits"
    return " + ".join(f"{place} {e['bits']}" for place, e in zip(places, recipe, strict=True)) + " bits"


def _view3d(source: Source) -> Figure:
    cells, further = quantized(source.cells), bool((source.cells["further"] != "").any())
    if further and (cells["part"] == "none").all():
        cells = cells.iloc[:0]  # the baseline alone shows nothing of widths
    columns = [f"bits_{part}" for part in part_names(cells)][:3]
    data = cells[["key", "setting", "blocks", "layers", *columns, source.metric]].rename(
        columns={source.metric: "value"}
    )
    data[columns] = data[columns].fillna(16.0)
    caption = (
        f"Every cell{' that is quantized and nothing else' if further else ''} by the width of its parts (16: left alone), "
        "coloured by the metric, as in the published study."
    )
    return Figure("view3d", "All cells in 3-D", caption, data, "+study=part_wise")
