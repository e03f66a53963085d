"""One self-contained HTML page. Text comes first; plotly and captions are packed inside and unpacked when needed."""

from __future__ import annotations

import base64
import gzip
import html
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import pandas as pd

from blip2sweep.analysis.recipes import part_names
from blip2sweep.analysis.stopped import level_text
from blip2sweep.files import write_atomic
from blip2sweep.reporting.boxes import box, boxed, where_to_run
from blip2sweep.reporting.captions import captions, packed
from blip2sweep.reporting.cell_table import cell_table
from blip2sweep.reporting.embedded import embedded_note
from blip2sweep.reporting.figure import Figure, write_csvs
from blip2sweep.reporting.figures import figures
from blip2sweep.reporting.metric_text import metric_text
from blip2sweep.reporting.overview import Overview, overview
from blip2sweep.reporting.prediction_quality import model_quality
from blip2sweep.reporting.price_table import Sizes
from blip2sweep.reporting.ship import ship_table
from blip2sweep.reporting.source import Source

SCRIPTS = ("common.js", "figures.js", "figures2.js", "figures3.js", "captions.js", "models.js", "view.js", "app.js")
MOST_FAILURES = 200


def build_report(source: Source, path: Path) -> list[Figure]:
    """Write the page, and beside it a folder `<name>-data` with one CSV for each figure. Returns the figures."""
    made = figures(source)
    write_atomic(path, page(source, made).encode())
    write_csvs(made, str(path.with_name(path.stem + "-data")))
    return made


def page(source: Source, made: list[Figure]) -> str:
    """The HTML of the page."""
    return whole_page(source.title, source.heading, body(source, made), packs(source, made))


def whole_page(title: str, heading: str, main: str, data: str, links: str = "") -> str:
    """The page around its content. title, heading: text; main, data, links: HTML."""
    values = {
        "title": html.escape(f"blip2sweep · {title}"),
        "heading": html.escape(heading),
        "style": asset("style.css"),
        "links": links,
        "main": main,
        "data": data,
        "plotly": _plotly(),
        "scripts": "\n".join(asset(name) for name in SCRIPTS),
    }
    return filled("page.html", values)


def body(source: Source, made: list[Figure]) -> str:
    """The HTML of one model's analysis."""
    head = overview(source, made)
    values = {
        "answers": _answers(head),
        "sentences": "".join(f"<li>{boxed(s, head.commands, source.output_dir)}</li>" for s in head.sentences),
        "where": html.escape(where_to_run(source.output_dir)) if head.commands else "",
        "ship": ship_table([source]),
        "figures": "".join(_section(f, n, source) for n, f in enumerate(made, 1)),
        "failures": _failures(source),
        "how": _how(source),
    }
    return filled("model.html", values)


def packs(source: Source, made: list[Figure], end: str = "", models: int = 1) -> str:
    """The elements with the data of one model's analysis. end: of their ids, where a page has several models."""
    browser, metric = captions(source, models), metric_text(source.metric)
    data = {
        "metric": metric.label,
        "words": {"worse": metric.worse, "axis": metric.axis, "gain": metric.gain, "higher": metric.higher_is_better},
        "base": _base(source),
        "parts": part_names(source.cells),
        "map": next({s: asdict(x) for s, x in f.layouts.items()} for f in made if f.name == "map"),
        "figures": {f.name: records(f.data) for f in made},
        "cells": records(cell_table(source)),
    }
    return (
        f'<script type="application/json" id="data{end}">{safe_json(data)}</script>\n'
        f'<script type="text/plain" id="packed-captions{end}">{packed(browser) if browser else ""}</script>'
    )


def filled(name: str, values: Mapping[str, str]) -> str:
    """A template of the page with its values, in one pass: inserted text is not searched again, so no text of a sweep
    can name a part of the page."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], asset(name))


def _base(source: Source) -> dict[str, object]:
    """The baseline, where curves over sizes begin, and the unit of sizes."""
    row = source.cells[source.cells["part"] == "none"].iloc[0]
    known = float(row.get("model_bytes", math.nan))
    sizes = Sizes(known if math.isfinite(known) else 0.0)
    return {
        "bytes": _plain(known),
        "value": _plain(float(row[source.metric])),
        "scale": sizes.scale,
        "unit": sizes.unit,
    }


def records(frame: pd.DataFrame) -> dict[str, list[object]]:
    """{column: values} of a frame as JSON takes them; NaN and infinity become null, floats have six decimals."""
    return {str(c): [_plain(v) for v in frame[c].tolist()] for c in frame}


def _plain(value: object) -> object:
    if isinstance(value, float):
        return None if not math.isfinite(value) else round(value, 6)
    return None if value is pd.NaT else value


def safe_json(data: object) -> str:
    """JSON that cannot end the script element around it."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=True, default=str)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@lru_cache
def asset(name: str) -> str:
    return (files("blip2sweep.reporting") / "page" / name).read_text(encoding="utf-8")


@lru_cache
def _plotly() -> str:
    """plotly.js as the Python package ships it, gzipped and in base64: 4.6 MB become 1.9."""
    source = (files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    return base64.b64encode(gzip.compress(source, 6, mtime=0)).decode()


def _answers(head: Overview) -> str:
    """The three questions of a visitor, each with its answer and a link to the figure that shows more."""
    return "".join(
        f"<div><h3>{html.escape(a.question)}</h3><p><b>{html.escape(a.short)}</b></p><p>{html.escape(a.text)}</p>"
        f'<a href="#{a.figure}" aria-label="{html.escape(a.question)} Show me">Show me</a></div>'
        for a in head.answers
    )


def _section(figure: Figure, number: int, source: Source) -> str:
    name, title = figure.name, html.escape(figure.title)
    if figure.empty:
        every = source.selection[:1] == ["--all"]
        told = ("Not in any sweep shown here. A sweep that has it:" if every else
                "Not in this sweep. A new sweep that has it (<code>blip2sweep report --all</code> shows all sweeps together):")  # fmt: skip
        body = f'<p class="missing">{told} {box(figure.missing, source.output_dir)}{html.escape(figure.why)}</p>'
    else:
        body = figure.table + (
            f'<div class="tools" id="tools-{name}"></div>'
            f'<div class="plot" id="plot-{name}" role="img" aria-label="{title}; its data is in the table below"></div>'
            f'<p class="note" id="note-{name}" aria-live="polite"></p>'
            f'<div class="below"><details><summary>Data</summary><div class="scroll" id="data-{name}"></div></details>'
            f'<button type="button" data-csv="{name}">CSV</button></div>'
        )
    return (
        f'<section class="figure" id="{name}"><h2>{number}. {title}</h2>'
        f"<p>{html.escape(figure.caption)}</p>{body}</section>"
    )


def _failures(source: Source) -> str:
    failed = source.table[source.table["status"] == "failed"]
    if failed.empty:
        return "<p>No cell failed.</p>"
    rows = "".join(
        f"<tr><td>{html.escape(str(r.get('failure')))}</td><td>{html.escape(str(r.get('recipe')))}</td>"
        f"<td>{html.escape(str(r.get('error'))[:500])}</td><td>{html.escape(str(r['key']))}</td></tr>"
        for r in failed.head(MOST_FAILURES).to_dict("records")
    )
    head = "<tr><th>kind</th><th>recipe</th><th>error</th><th>key</th></tr>"
    more = (
        f"<p>The first {MOST_FAILURES} of {len(failed)}; all are in table.parquet.</p>"
        if len(failed) > MOST_FAILURES
        else ""
    )
    return f'<div class="scroll" tabindex="0"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>{more}'


def _how(source: Source) -> str:
    """The list of what a reader needs to run the sweep again and to judge its numbers."""
    cells = source.cells
    facts = dict[str, str | None]()
    for column in (
        "model",
        "weights",
        "revision",
        "dtype",
        "stored",
        "task",
        "data",
        "generation",
        "device",
        "versions",
        "code",
        "imported",
    ):
        if column in cells:
            facts[column] = ", ".join(dict.fromkeys(str(v) for v in cells[column].dropna()))[:600] or None
    if "seconds" in cells:
        facts["time"] = f"{cells['seconds'].sum() / 60:.1f} minutes for {len(cells)} cells"
    facts["prediction"] = model_quality(source)
    facts["intervals"] = (
        "none: these scores came without outputs"
        if source.draws is None
        else f"{level_text(cells)}, paired, over images: Student's with Hall's transformation, compound Poisson where fewer than 30 images changed in effect; "
        "bands by max-T, B = 2000 resamples shared by all cells"
    )
    facts["note"] = embedded_note(set(cells["model"]))
    command = box(f"python -m blip2sweep {source.command}", source.output_dir) if source.command else ""
    first = f"<dt>command</dt><dd>{command}</dd>" if command else ""
    rows = "".join(f"<dt>{k}</dt><dd>{html.escape(v)}</dd>" for k, v in facts.items() if v)
    return f"<dl>{first}{rows}</dl>"
