"""blip2sweep: find out where a vision-language model breaks when it is compressed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from blip2sweep.version import VERSION

if TYPE_CHECKING:
    import pandas as pd

__version__ = VERSION
__all__ = ["__version__", "report", "sweep"]


def sweep(
    overrides: str,
    *more: str,
    workers: int | None = None,
    config_dir: str | Path | None = None,
    processes_per_cell: int | None = None,
) -> pd.DataFrame:
    """Run a sweep on this machine as `python -m blip2sweep -m OVERRIDES` does. Returns the sweep's table, one row a cell.

    overrides: words of the command line, such as "quant.bits=2,4 part=vision,language"; more: further words, each of which may
    hold spaces. workers: processes; null: one a GPU. config_dir: a folder with YAML and Python files of your own
    (docs/extending.md). processes_per_cell: that share the images of each cell; None: 1. Raises UserError for bad input.
    """
    from blip2sweep.commands.api import run

    return run(overrides, more, workers, None if config_dir is None else Path(config_dir), processes_per_cell)


def report(sweep: str | None = None, output_dir: str | Path = "outputs", path: str | Path | None = None) -> Path:
    """Write the HTML page of a sweep (default: the newest), its CSVs beside it. Returns the page's path.

    Raises UserError where there is no such sweep.
    """
    from blip2sweep.commands.api import write_report

    return write_report(sweep, Path(output_dir), None if path is None else Path(path))
