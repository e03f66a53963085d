"""The price table of one setting as lines of a terminal and as HTML, and how sizes are written in it."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from blip2sweep.reporting.boxes import box

UNITS = ((1e9, 1e6, "MB"), (1e6, 1e3, "kB"), (0.0, 1.0, "bytes"))


@dataclass(frozen=True)
class Sizes:
    """How sizes are written. base: the bytes of the baseline; for 7.5 GB sizes are in MB, and prices are for 100 MB."""

    base: float

    def __call__(self, size: float) -> str:
        """A size in bytes as text with its unit."""
        digits = 0 if abs(size) >= 10 * self.scale or self.scale == 1 or size % self.scale == 0 else 1
        return f"{size / self.scale:,.{digits}f} {self.unit}"

    @property
    def scale(self) -> float:
        """The bytes of one unit."""
        return self._unit[0]

    @property
    def unit(self) -> str:
        """MB, kB or bytes."""
        return self._unit[1]

    @property
    def per(self) -> float:
        """The bytes that a price is for, about a hundredth of the model."""
        return float(10.0 ** (math.floor(math.log10(max(self.base, 10.0))) - 1))

    @property
    def _unit(self) -> tuple[float, str]:
        return next((scale, name) for least, scale, name in UNITS if self.base >= least)


@dataclass(frozen=True)
class PriceTable:
    """The price table of one setting, as texts.

    rows: part, step, lost, saved, price. missing: steps whose cell was not run, each with its command or None.
    """

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    missing: list[tuple[str, str | None]]
    advice: str

    def lines(self) -> list[str]:
        """The lines for a terminal."""
        table = [self.head, *self.rows]
        widths = [max(len(r[i]) for r in table) for i in range(len(self.head))]
        drawn = ["  " + "  ".join(v.ljust(w) for v, w in zip(r, widths, strict=True)).rstrip() for r in table]
        absent = [f"  not run: {what}" + (f": {command}" if command else "") for what, command in self.missing]
        return [f"{self.title}:", *drawn, *absent, *([f"  {self.advice}"] if self.advice else [])]

    def html(self, output_dir: Path) -> str:
        """The HTML for the page. output_dir: of the results."""
        head = "".join(f'<th scope="col">{html.escape(c)}</th>' for c in self.head)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(v)}</td>" for v in r) + "</tr>" for r in self.rows)
        absent = "".join(
            f"<li>{html.escape(what)}" + (f": {box(command, output_dir)}" if command else "") + "</li>"
            for what, command in self.missing
        )
        not_run = f"<p>Not run:</p><ul>{absent}</ul>" if absent else ""
        advice = f"<p>{html.escape(self.advice[:1].upper() + self.advice[1:])}.</p>" if self.advice else ""
        title = html.escape(self.title[:1].upper() + self.title[1:])
        return (
            f'<h3>{title}</h3><div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>{advice}{not_run}"
        )


def sizes_of(cells: pd.DataFrame) -> Sizes:
    """How the sizes of these cells are written, by their baseline."""
    return Sizes(float(cells.loc[cells["part"] == "none", "model_bytes"].iloc[0]))
