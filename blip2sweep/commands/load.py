"""Results as data frames: the tables of an output folder, and the page that is made of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from blip2sweep.commands.api import fresh
from blip2sweep.commands.report import check_asked, report
from blip2sweep.console.printing import tell
from blip2sweep.errors import UserError
from blip2sweep.reporting.pair import load_pair
from blip2sweep.reporting.sources import load_sources
from blip2sweep.results.latest import up_to_date
from blip2sweep.results.sample_parts import SHOWN
from blip2sweep.results.sweeps import find_sweep

Folder = str | Path | None


def folder_of(output_dir: Folder) -> Path:
    """The folder of results; None: that of the environment, else `outputs`. Raises UserError where there is none."""
    folder = Path(output_dir if output_dir is not None else os.environ.get("BLIP2SWEEP_OUTPUT_DIR") or "outputs")
    if not folder.is_dir():
        raise UserError(f"output_dir={folder}: no such folder; right: that of a sweep, or run one with sweep(…)")
    return folder


def table(output_dir: Folder, sweep: str | None) -> pd.DataFrame:
    """The table of a sweep, or of all cells, as the journals are now."""
    fresh()
    folder = folder_of(output_dir)
    found, said = up_to_date(folder, None if sweep is None else find_sweep(folder, sweep))
    for line in said:
        tell(f"warning: {line}")
    return found


def samples(output_dir: Folder, keys: str | Sequence[str] | None, sweep: str | None) -> pd.DataFrame:
    """The samples of some cells, of a sweep's, or of all.

    Raises UserError for a key that no cell of these begins with, or several do.
    """
    cells = table(output_dir, sweep)["key"]
    folder = folder_of(output_dir)
    wanted = None if keys is None else [_full(key, cells) for key in ([keys] if isinstance(keys, str) else keys)]
    if wanted is None and sweep is not None:
        wanted = list(cells)
    if not (folder / SHOWN).exists():
        raise UserError(
            f"{folder / SHOWN}: no samples here; right: cells that ran here, for imported ones may have none"
        )
    chosen = None if wanted is None else [("key", "in", wanted)]
    return pq.read_table(folder / SHOWN, filters=chosen).to_pandas()


def _full(key: object, cells: pd.Series) -> str:
    found = [k for k in cells if isinstance(key, str) and key and k.startswith(key)]
    if len(found) != 1:
        raise UserError(
            f"keys: {key!r} begins {len(found) or 'no'} keys here; right: one key of the table, or its beginning"
        )
    return str(found[0])


def page(sweep: str | Sequence[str] | None, output_dir: Folder, path: str | Path | None, all_cells: bool) -> Path:
    """Write the page of a sweep, of two side by side, or of all cells. Returns its path."""
    fresh()
    folder = folder_of(output_dir)
    names = [sweep] if isinstance(sweep, str) else [*(sweep or ())]
    if len(names) > 1:
        check_asked(names, None, all_cells)
    sources = (
        load_pair(folder, names, {}) if len(names) > 1 else load_sources(folder, next(iter(names), None), all_cells)
    )
    to = None if path is None else Path(path)
    report(sources, to, png=False, pdf=False)
    return to or sources.page
