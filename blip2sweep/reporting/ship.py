"""What to ship: of each size the best cell that images cannot tell from the baseline, with the command that exports it."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from blip2sweep.analysis.cell_row import Row, number
from blip2sweep.analysis.frontier import ALL, frontier
from blip2sweep.analysis.recipes import entries, text_of
from blip2sweep.analysis.stopped import FINISH, stopped
from blip2sweep.console.remarks import many
from blip2sweep.reporting.back_ends import back_end_names, origins
from blip2sweep.reporting.boxes import box
from blip2sweep.reporting.export_line import export_command, usual
from blip2sweep.reporting.metric_text import metric_text
from blip2sweep.reporting.price_table import Sizes
from blip2sweep.reporting.smaller import ratio_text
from blip2sweep.reporting.source import Source

MOST = 3  # sizes of one back end


@dataclass(frozen=True)
class Shipped:
    """A cell to ship. drop, low, high: on the images that did not choose it. disk: bytes of all files; ms: the median of
    one image; NaN where they were not measured. command: None where no format holds it."""

    back_end: str
    what: str
    key: str
    ratio: float
    payload: float
    disk: float
    drop: float
    low: float
    high: float
    ms: float
    times: float
    device: str
    command: str | None


def shipped(source: Source) -> list[Shipped]:
    """The cells within the noise that no other cell beats in both size and metric, the smallest first.

    A cell is within the noise where the 95 % interval of its drop, on the images that did not choose it, covers 0 or
    lies below. Empty without outputs, since nothing is then known of the noise. Cells that stopped early are left out:
    of few images less is told from the noise.
    """
    if source.draws is None or not {"model_bytes", "compression_ratio"} <= {*source.cells}:
        return []
    own = own_cells(source)
    own = own[~stopped(own)]
    if own.loc[own["part"] != "none", "model_bytes"].isna().all():
        return []
    found = frontier(own.assign(setting=ALL), source.metric, source.draws, "model_bytes")
    found = found[found["held_out"].astype(bool) & (found["low"].astype(float) <= 0)].head(MOST)
    rows = own.assign(_back_end=back_end_names(own)).drop_duplicates("key").set_index("key", drop=False)
    return [_shipped(source, rows.loc[str(one["key"])].to_dict(), one) for one in found.to_dict("records")]


def own_cells(source: Source) -> pd.DataFrame:
    """The cells that were run here. Of what others ran there is nothing here to ship."""
    return source.cells[[origin == "" for origin in origins(source.cells)]]


def _shipped(source: Source, row: Row, found: Row) -> Shipped:
    recipe = entries(str(row["recipe_json"]))
    held = usual(source, recipe) if row["key"] in source.jobs else None
    device = row.get("latency_device")
    return Shipped(
        str(row["_back_end"]), f"{text_of(recipe)} ({row['setting']})", str(row["key"]),
        number(row, "compression_ratio"), number(row, "payload_bytes") if "payload_bytes" in row else math.nan,
        number(row, "export_bytes"), number(found, "drop"), number(found, "low"), number(found, "high"),
        number(row, "latency_ms_median"), number(row, "latency_ratio"), str(device) if isinstance(device, str) else "",
        export_command(source, held, str(row["key"])) if held else None,
    )  # fmt: skip


def ship_table(sources: Sequence[Source]) -> str:
    """HTML of what to ship, of one back end or of several beside each other; nothing without outputs of cells that were
    run here."""
    rows = [(source, one) for source in sources for one in shipped(source)]
    if all(source.draws is None or (own_cells(source)["part"] == "none").all() for source in sources):
        return ""
    head = '<h3 class="ship">What to ship</h3>'
    left = sum(int(stopped(own_cells(source)).sum()) for source in sources)
    early = (
        f" {many(left, 'cell')} that stopped early {'is' if left == 1 else 'are'} left out: finish first what is to ship ({FINISH})."
        if left
        else ""
    )
    if not rows:
        whole = any((own["part"] != "none")[~stopped(own)].any() for own in map(own_cells, sources))
        none = "is within the noise of the baseline" if whole else "has seen all images"
        return f"{head}<p>No compressed cell {none}.{early}</p>"
    worse = metric_text(sources[0].metric)
    heads = ["back end", "recipe", "ratio", "payload", "on disk", f"{worse.worse} of {worse.label}", "ms", "export"]
    head_cells = "".join(f'<th scope="col">{html.escape(h)}</th>' for h in heads)
    body = "".join(_line(source, one) for source, one in rows)
    said = (
        "Of each size the best cell whose drop is not distinguishable from 0 on the images that did not choose it. Drops are against the "
        f"same back end's own baseline. Ratio: the model at 16 bits a number over the payload.{early}"
    )
    return (
        f'{head}<p>{html.escape(said)}</p><div class="scroll" tabindex="0"><table><thead><tr>'
        f"{head_cells}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _line(source: Source, one: Shipped) -> str:
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in _cells(source, one))}</tr>"


def _cells(source: Source, one: Shipped) -> Iterator[str]:
    row = source.cells[source.cells["key"] == one.key].iloc[0]
    payload = one.payload if one.payload == one.payload else float(row["model_bytes"])
    sizes = Sizes(float(source.cells["model_bytes"].max()))
    yield from (html.escape(text) for text in (one.back_end, one.what, ratio_text(one.ratio), sizes(payload)))
    yield "" if math.isnan(one.disk) else html.escape(sizes(one.disk))
    yield html.escape(f"{one.drop:.3f} [{one.low:.3f}, {one.high:.3f}]".replace("-", "−"))
    yield html.escape(_time(one))
    yield box(one.command, source.output_dir) if one.command else "no usual format holds it"


def _time(one: Shipped) -> str:
    if math.isnan(one.ms):
        return "not timed"
    times = "" if math.isnan(one.times) else f", × {one.times:.2f} of its baseline"
    return f"{one.ms:.4g} on {one.device}{times}"
