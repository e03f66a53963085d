"""The page of several models: their drops by role, then the analysis of each, one at a time."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import NamedTuple

from blip2sweep.analysis.models import models_of
from blip2sweep.files import write_atomic
from blip2sweep.reporting.comparison import Comparison, compare, drawn
from blip2sweep.reporting.figure import Figure, label, write_csvs
from blip2sweep.reporting.figures import figures
from blip2sweep.reporting.html import body, filled, packs, records, safe_json, whole_page
from blip2sweep.reporting.pair import Pair
from blip2sweep.reporting.price_table import Sizes
from blip2sweep.reporting.ship import ship_table
from blip2sweep.reporting.side_by_side import side_by_side
from blip2sweep.reporting.sources import BACK_END, Sources

LINK = '<a href="#models">{}s</a> '


class Written(NamedTuple):
    """The figures whose CSVs are in one folder, and the label of their metric."""

    folder: Path
    figures: list[Figure]
    metric: str


def write_models_page(sources: Sources, path: Path) -> list[Written]:
    """Write the page, and beside it a folder `<name>-data` with the comparison as CSV and a folder of CSVs a model."""
    compared = side_by_side(sources) if isinstance(sources, Pair) else compare(sources)
    made = [figures(s) for s in sources.models]
    write_atomic(path, models_page(sources, compared, made).encode())
    folder = path.with_name(path.stem + "-data")
    found = [Written(folder, [compared.figure], compared.metric.label)]
    for name, source, own in zip(folder_names(sources.names), sources.models, made, strict=True):
        found.append(Written(folder / name, own, label(source)))
    for written in found:
        write_csvs(written.figures, str(written.folder))
    return found


def folder_names(models: list[str]) -> list[str]:
    """A name of a folder for each model; no two are equal, also where letters are not told apart by size."""
    names = list[str]()
    for model in models:
        name = re.sub(r"[^\w.-]+", "_", model).strip("._")[:80] or "model"
        taken = {n.lower() for n in names}
        more = (f"{name}-{i}" for i in range(2, len(models) + 2))
        names.append(name if name.lower() not in taken else next(n for n in more if n.lower() not in taken))
    return names


def models_page(sources: Sources, compared: Comparison, made: list[list[Figure]]) -> str:
    """The HTML of the page. made: the figures of each model."""
    bodies = [body(s, own) for s, own in zip(sources.models, made, strict=True)]
    values = {
        "title": html.escape(compared.figure.title),
        "notes": "".join(f"<li>{html.escape(n)}</li>" for n in compared.notes),
        "caption": html.escape(compared.figure.caption) if len(drawn(compared.figure.data)) else "",
        "figure": _figure(compared) + (ship_table(sources.models) if sources.kind == BACK_END else ""),
        "kind": html.escape(sources.kind.capitalize()),
        "buttons": "".join(_button(name, i == 0) for i, name in enumerate(sources.names)),
        "body": bodies[0],
    }
    ends = [f"-{i}" if i else "" for i in range(len(bodies))]
    data = [packs(s, own, end, len(bodies)) for s, own, end in zip(sources.models, made, ends, strict=True)]
    others = [f"<template data-body>{text}</template>" for text in bodies[1:]]
    seen = f'<script type="application/json" id="compared">{safe_json(_data(compared))}</script>'
    return whole_page(
        sources.title,
        sources.heading,
        filled("models.html", values),
        "\n".join([seen, *data, *others]),
        LINK.format(sources.kind.capitalize()),
    )


def _data(compared: Comparison) -> dict[str, object]:
    """What the page draws the comparison from. settings: those with panels, the one with most rows first."""
    data = compared.figure.data
    shown = drawn(data)
    sizes = Sizes(float(data["model_bytes"].max()) if len(data) and data["model_bytes"].notna().any() else 0.0)
    return {
        "data": records(data), "models": models_of(data),
        "settings": [str(s) for s in shown["setting"].value_counts().index] if len(shown) else [],
        "metric": compared.metric.label, "worse": compared.metric.worse, "scale": sizes.scale, "unit": sizes.unit,
    }  # fmt: skip


def _figure(compared: Comparison) -> str:
    """The picture, the table and the data of the comparison; nothing where no model is compared."""
    figure = compared.figure
    if figure.empty:
        return ""
    plot = (
        '<div class="tools" id="tools-models"></div>'
        '<div class="plot" id="plot-models" role="img" aria-label="Models by role; its data is in the table below"></div>'
        '<p class="note" id="note-models" aria-live="polite"></p>'
    )
    return (
        f"{plot if len(drawn(figure.data)) else ''}{figure.table}"
        '<div class="below"><details><summary>Data</summary><div class="scroll" id="data-models"></div></details>'
        '<button type="button" data-csv="models">CSV</button></div>'
    )


def _button(name: str, pressed: bool) -> str:
    text = html.escape(name)
    return f'<button type="button" data-model aria-pressed="{str(pressed).lower()}" title="{text}">{text}</button>'
