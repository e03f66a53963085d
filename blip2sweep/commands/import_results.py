"""`blip2sweep import WHAT PATH`."""

from __future__ import annotations

import shlex
from pathlib import Path

from blip2sweep.console.printing import say
from blip2sweep.errors import UserError, nearest
from blip2sweep.importing.table_csv import Options, import_csv
from blip2sweep.metrics import CAPTION_METRICS
from blip2sweep.results.collect import collect
from blip2sweep.results.sweeps import find_sweep

KINDS = ("blip2-coco", "csv")


def import_what(
    what: str,
    path: Path,
    output_dir: Path,
    metrics: str,
    options: Options,
) -> list[str]:
    """Import results, collect, and print what was found. How a file was read is printed to stderr."""
    if what not in KINDS:
        raise UserError(f"import {what}: unknown; {nearest(what, KINDS)}")
    if what == "csv":
        found = import_csv(path, output_dir, options)
        say(*found.notes, err=True)
        lines, name = [f"{path}: {found.cells} cells"], found.name
        lines += [f"  columns that are not used: {', '.join(found.unused)}"] if found.unused else []
    else:
        if options != Options():
            raise UserError(f"import {what}: takes --metrics and --output-dir alone; right: the other options with csv")
        lines, name = _study(path, output_dir, metrics.split(",")), "blip2-coco"
    sweep = find_sweep(output_dir, name)
    collect(output_dir, sweep, rescored=sweep.keys)
    again = shlex.join(["blip2sweep", "report", name, "--output-dir", str(output_dir)])
    return [*lines, f"wrote {output_dir}/sweeps/{name}; next: {again}"]


def _study(path: Path, output_dir: Path, metrics: list[str]) -> list[str]:
    from blip2sweep.importing.blip2_coco import import_blip2_coco, summary

    for name in metrics:
        if name not in CAPTION_METRICS:
            raise UserError(f"--metrics {name}: unknown; {nearest(name, CAPTION_METRICS)}")
    return summary(import_blip2_coco(path, output_dir, metrics))
