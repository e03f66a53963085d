"""Tables as the journals have them now, read again only where something is new."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

import numpy as np
import pandas as pd

from blip2sweep.errors import UserError
from blip2sweep.metrics import METRICS
from blip2sweep.results.collect import collect, looked_up
from blip2sweep.results.predictions import scored_names, stem
from blip2sweep.results.sweeps import Sweep, passed_over
from blip2sweep.results.table_files import is_current

ALL = "all cells"


UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


def up_to_date(output_dir: Path, found: Sweep | None) -> tuple[pd.DataFrame, list[str]]:
    """A sweep's table, or that of all cells, with what is to be said of it. The tables are brought up to date first where
    something is new and may be written."""
    path = (found.folder(output_dir) if found else output_dir) / "table.parquet"
    if not any((output_dir / "journals").glob("*.jsonl")):
        return read_table(path), []
    if is_current(path, output_dir, found):
        with contextlib.suppress(UserError):  # a damaged one is made anew
            return read_table(path), []
    if all(os.access(p, os.W_OK) for p in (output_dir, path.parent)):
        try:
            collect(output_dir, found)
        except (UserError, PermissionError) as error:
            if not unwritable(error):
                raise
        else:
            return read_table(path), []
    told = (
        f"{output_dir} may not be written by you: shown as its journals are; cells that nobody measured have no metrics"
    )
    return filled(looked_up(output_dir, found), path), [told]


def unwritable(error: UserError | PermissionError) -> bool:
    """Whether it is for want of permission: somebody else's results."""
    return isinstance(error, PermissionError) or getattr(error.__cause__, "errno", None) in UNWRITABLE


def not_scored(table: pd.DataFrame, output_dir: Path) -> list[str]:
    """Cells that are done and have no statistics, or no metric. Imported ones need have none."""
    done = table[table["status"] == "done"]
    done = done[done["predictions"].notna()] if "predictions" in done else done.iloc[:0]
    names, metrics = scored_names(output_dir), [m for m in METRICS if m in done]
    absent = [stem(key, said) not in names for key, said in zip(done["key"], done["predictions"], strict=True)]
    bare = done[done[metrics].isna().all(axis=1).to_numpy() | np.array(absent, bool)]
    if bare.empty:
        return []
    what = f"{len(bare)} of {len(done)} cells {'are' if len(bare) > 1 else 'is'} done and not scored"
    return [
        f"{what}, the first is {bare['key'].iloc[0]}; right: `blip2sweep retry` scores them, where nothing else is at it"
    ]


def newer_runs(output_dir: Path, sweep: Sweep) -> list[str]:
    """What is newer than a sweep that was not named, and not shown."""
    names = passed_over(output_dir, sweep)
    many = f"{len(names)} newer runs of one cell are" if len(names) > 1 else "a newer run of one cell is"
    return [f"{many} not shown; the last is {names[-1]}"] if names else []


def read_table(path: Path) -> pd.DataFrame:
    """A table.parquet; UserError when there is none, or no row in it."""
    if not path.exists():
        raise UserError(f"{path}: no table yet; right: run the sweep, or wait for its first cell")
    try:
        return filled(pd.read_parquet(path, page_checksum_verification=True), path)
    except (OSError, ValueError) as error:  # pyarrow's own are kinds of these
        raise UserError(f"{path}: damaged; right: remove it, it is made again from the journals") from error


def filled(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """A table; UserError when there is no row in it."""
    if table.empty:
        raise UserError(f"{path}: the table has no rows; right: wait for the sweep's first cell")
    return table
