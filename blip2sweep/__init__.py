"""blip2sweep: find out where a vision-language model breaks when it is compressed.

The functions here do what the commands of the same names do, with the same ledger and the same keys. docs/python.md
introduces them. Bad input is a UserError of one line, before anything is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from blip2sweep.errors import SweepFailed, UserError
from blip2sweep.version import VERSION

if TYPE_CHECKING:
    import pandas as pd

    from blip2sweep.commands.planned import SweepPlan

__version__ = VERSION
__all__ = [
    "SweepFailed",
    "UserError",
    "__version__",
    "evaluate",
    "load_samples",
    "load_table",
    "plan",
    "report",
    "sweep",
]


def sweep(
    overrides: str | Mapping[str, object] = "",
    *more: str | Mapping[str, object],
    workers: int | None = None,
    config_dir: str | Path | None = None,
    processes_per_cell: int | None = None,
    output_dir: str | Path | None = None,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Run a sweep on this machine, as `python -m blip2sweep -m OVERRIDES` does. Cells that are done are not run again.

    Args:
        overrides: Words of the command line, such as `"quant.bits=2,4 part=vision,language"`, or a mapping such as
            `{"quant.bits": [2, 4], "part": ["vision", "language"]}`. In a mapping a list makes a cell of each value, and several
            lists multiply; a mapping within is a section (`{"quant": {"bits": 4}}`); a text is one value as it stands,
            commas too; None is `null`, which leaves a value to its preset.
        more: Further words, each of which may hold blanks, and further mappings.
        workers: Processes that run cells; None: one a GPU, or one.
        config_dir: A folder with YAML and Python files of your own (docs/extending.md).
        processes_per_cell: Processes that share the images of each cell; None: 1.
        output_dir: Where results are; None: as the overrides say, else `$BLIP2SWEEP_OUTPUT_DIR`, else `outputs`.
        progress: Whether to say what goes on, with a bar on a terminal and in a notebook; None: only there.

    Returns:
        The sweep's table, a row a cell, failed ones and baselines too. docs/columns.md has its columns. `.attrs["sweep"]`
            is the sweep's name.

    Raises:
        UserError: Bad input, before anything is written.
    """
    from blip2sweep.commands.api import Asked, run

    return run(Asked(overrides, more, workers, processes_per_cell, config_dir, output_dir), progress)


def plan(
    overrides: str | Mapping[str, object] = "",
    *more: str | Mapping[str, object],
    workers: int | None = None,
    config_dir: str | Path | None = None,
    processes_per_cell: int | None = None,
    output_dir: str | Path | None = None,
) -> SweepPlan:
    """Say what `sweep` of the same arguments would do. No weights are loaded and nothing is written.

    Returns:
        A SweepPlan: `cells` (a data frame with key, status, what asks for it, recipe), `to_run` (keys), `skipped` (with
            reasons), `packs` (keys a worker), `seconds` and `summary`.

    Raises:
        UserError: As `sweep` does.
    """
    from blip2sweep.commands.api import Asked, would_run

    return would_run(Asked(overrides, more, workers, processes_per_cell, config_dir, output_dir))


def evaluate(
    overrides: str | Mapping[str, object] = "",
    *more: str | Mapping[str, object],
    config_dir: str | Path | None = None,
    processes_per_cell: int | None = None,
    output_dir: str | Path | None = None,
    progress: bool | None = None,
) -> pd.Series:
    """Run one cell, and its baseline, unless the ledger has them. Arguments are those of `sweep`.

    A sweep of many cells loads the model once; of many calls of this each loads it.

    Returns:
        The cell's row of the table, such as `row["cider"]`, `row["drop_cider_low"]`, `row["key"]`.

    Raises:
        UserError: As `sweep` does, and for more than one cell.
        SweepFailed: The cell failed. The message says why.
    """
    from blip2sweep.commands.api import Asked, run_one

    return run_one(Asked(overrides, more, None, processes_per_cell, config_dir, output_dir), progress)


def load_table(output_dir: str | Path | None = None, sweep: str | None = None) -> pd.DataFrame:
    """Load the table of an output folder, made anew from its journals where something is new.

    Args:
        output_dir: Where results are; None: `$BLIP2SWEEP_OUTPUT_DIR`, else `outputs`.
        sweep: The name of a sweep; None: all cells.

    Returns:
        A row a cell, as in `table.parquet`. Rows whose `stale` is true were computed by an earlier version.

    Raises:
        UserError: There is no such folder or sweep, or no result in it.
    """
    from blip2sweep.commands.load import table

    return table(output_dir, sweep)


def load_samples(
    output_dir: str | Path | None = None, keys: str | Sequence[str] | None = None, sweep: str | None = None
) -> pd.DataFrame:
    """Load what cells answered, sample by sample.

    Args:
        output_dir: Where results are; None: `$BLIP2SWEEP_OUTPUT_DIR`, else `outputs`.
        keys: One key or several, or their beginnings; None: every cell of the sweep.
        sweep: The name of a sweep; None: all cells. A large ledger has millions of rows.

    Returns:
        A row a cell and sample, as in `samples.parquet`: `key`, `id`, `image_id`, `text`, scores, likelihood.

    Raises:
        UserError: There is no such folder, sweep or key, or no result in it.
    """
    from blip2sweep.commands.load import samples

    return samples(output_dir, keys, sweep)


def report(
    sweep: str | Sequence[str] | None = None,
    output_dir: str | Path | None = None,
    path: str | Path | None = None,
    all_cells: bool = False,
) -> Path:
    """Write the HTML page of a sweep, or of two side by side, its CSVs beside it.

    Args:
        sweep: The sweep's name, or those of two sweeps or models; None: the newest of several cells.
        output_dir: Where results are; None: `$BLIP2SWEEP_OUTPUT_DIR`, else `outputs`.
        path: The page's file; None: `report.html` in the sweep's folder.
        all_cells: Every cell of the folder in place of a sweep's.

    Returns:
        The page's path.

    Raises:
        UserError: There is no such folder or sweep, or nothing to compare in it.
    """
    from blip2sweep.commands.load import page

    return page(sweep, output_dir, path, all_cells)
