"""Tables that are up to date with the journals. They are made again only when something is new."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from blip2sweep.errors import UserError
from blip2sweep.metrics import METRICS
from blip2sweep.results.collect import collect, unwritten_rows
from blip2sweep.results.predictions import stem
from blip2sweep.results.schema import names_of_known
from blip2sweep.results.score_folders import known_variants, scored_names
from blip2sweep.results.sweeps import Sweep, find_results, list_sweeps, newer_single_runs
from blip2sweep.results.table_files import is_current

ALL = "all cells"
UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


def sweep_or_all(output_dir: Path, name: str | None, all_cells: bool) -> Sweep | None:
    """The sweep that is asked for, as `find_results` chooses it; None for all cells. Raises UserError where both are."""
    if all_cells and name is not None:
        raise UserError(f"{name} and --all: one of them says which cells; right: a name, or --all")
    return None if all_cells else find_results(output_dir, name)


def up_to_date(output_dir: Path, sweep: Sweep | None) -> tuple[pd.DataFrame, list[str]]:
    """(the table of a sweep, or of all cells; remarks about it). The tables are made again first when something is new
    and the folder may be written. Raises UserError when there is no table, or no row in it."""
    path = (sweep.folder(output_dir) if sweep else output_dir) / "table.parquet"
    if not any((output_dir / "journals").glob("*.jsonl")):
        return read_table(path), []
    if is_current(path, output_dir, sweep):
        with contextlib.suppress(UserError):  # a damaged table is made again below
            return read_table(path), []
    if all(os.access(p, os.W_OK) for p in (output_dir, path.parent)):
        try:
            collect(output_dir, sweep)
        except (UserError, PermissionError) as error:
            if not unwritable(error):
                raise
        else:
            return read_table(path), []
    remark = (
        f"{output_dir} may not be written by you: shown as its journals are; cells that nobody measured have no metrics"
    )
    return with_rows(unwritten_rows(output_dir, sweep), path), [remark]


def unwritable(error: UserError | PermissionError) -> bool:
    """Whether an error comes from missing permission, as in somebody else's results."""
    return isinstance(error, PermissionError) or getattr(error.__cause__, "errno", None) in UNWRITABLE


def not_scored(table: pd.DataFrame, output_dir: Path, sweep: Sweep | None = None) -> list[str]:
    """A remark about cells that are done and lack statistics, of a rule that the sweep wants or any metric. None: every
    rule that some sweep wants. Imported cells without predictions need none."""
    done = table[table["status"] == "done"]
    done = done[done["predictions"].notna()] if "predictions" in done else done.iloc[:0]
    own = set(done["main_metric"].dropna()) if "main_metric" in done else set()  # of tasks from outside
    has = _Scored(output_dir, [sweep] if sweep else list_sweeps(output_dir))
    metrics = [m for m in (*METRICS, *sorted(own - METRICS.keys())) if m in done]
    absent = [not has(*one) for one in zip(done["key"], done["predictions"], strict=True)]
    bare = done[metrics].isna().all(axis=1).to_numpy() if metrics else np.zeros(len(done), bool)
    lacking = done[bare | np.array(absent, bool)]
    if lacking.empty:
        return []
    what = f"{len(lacking)} of {len(done)} cells {'are' if len(lacking) > 1 else 'is'} done and not scored"
    return [
        f"{what}, the first is {lacking['key'].iloc[0]}; right: `blip2sweep retry` scores them, where nothing else is at it"
    ]


class _Scored:
    """Whether there is every score file that sweeps want of a cell; of a cell that none has, one of any rule."""

    def __init__(self, output_dir: Path, sweeps: Sequence[Sweep]) -> None:
        self._wanted: dict[str, set[str]] = {}
        for sweep in sweeps:
            for variant, keys in sweep.wanted().items():
                self._wanted.setdefault(variant, set()).update(keys)
        there = {"", *known_variants(output_dir), *self._wanted}
        self._names = {variant: scored_names(output_dir, variant) for variant in there}

    def __call__(self, key: str, predictions: str) -> bool:
        name = stem(key, predictions)
        wanted = [variant for variant, keys in self._wanted.items() if key in keys]
        there = [name in self._names[variant] for variant in wanted or self._names]
        return all(there) if wanted else any(there)


def newer_runs(output_dir: Path, sweep: Sweep) -> list[str]:
    """A remark about runs of one cell that are newer than a sweep which was found without a name; empty when there are
    none."""
    names = newer_single_runs(output_dir, sweep)
    many = f"{len(names)} newer runs of one cell are" if len(names) > 1 else "a newer run of one cell is"
    return [f"{many} not shown; the last is {names[-1]}"] if names else []


def read_table(path: Path) -> pd.DataFrame:
    """A table.parquet, without columns that are empty everywhere. Raises UserError when there is none, when it is
    damaged, and when it has no row."""
    if not path.exists():
        raise UserError(f"{path}: no table yet; right: run the sweep, or wait for its first cell")
    try:
        return with_rows(pd.read_parquet(path, columns=_known(path), page_checksum_verification=True), path)
    except (OSError, ValueError) as error:  # pyarrow's errors are subclasses of these
        raise UserError(f"{path}: damaged; right: remove it, it is made again from the journals") from error


def _known(path: Path) -> list[str]:
    """The columns of a table's file that have a value, from its metadata, so that nothing empty is read."""
    data = pq.read_metadata(path)
    groups = [data.row_group(i) for i in range(data.num_row_groups)]
    nulls: dict[str, int] = {}
    for chunk in (group.column(i) for group in groups for i in range(group.num_columns)):
        name = chunk.path_in_schema.partition(".")[0]
        counted = chunk.statistics.null_count if chunk.statistics is not None else None
        nulls[name] = nulls.get(name, 0) + (counted or 0)
    return names_of_known(list(nulls.items()), data.num_rows)


def with_rows(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The table. Raises UserError when it has no row; path names it in the message."""
    if table.empty:
        raise UserError(f"{path}: the table has no rows; right: wait for the sweep's first cell")
    return table
