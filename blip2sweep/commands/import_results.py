"""`blip2sweep import WHAT PATH`."""

from __future__ import annotations

import shlex
from pathlib import Path

from blip2sweep.commands.rescore import jobs_of
from blip2sweep.console.printing import say
from blip2sweep.errors import UserError, nearest
from blip2sweep.importing.table_csv import Options, import_csv
from blip2sweep.metrics import CAPTION_METRICS
from blip2sweep.results.collect import collect
from blip2sweep.results.sweeps import find_sweep
from blip2sweep.wire.pack import CellJob

PREDICTIONS = "predictions"
KINDS = ("blip2-coco", "csv", PREDICTIONS)


def import_what(
    what: str,
    path: Path,
    output_dir: Path,
    metrics: str,
    options: Options,
    like: str | None = None,
) -> list[str]:
    """Import results, collect, and print what was found. How a file was read is printed to stderr.

    like: the key of a cell, or its beginning, of `predictions`.
    """
    if what not in KINDS:
        raise UserError(f"import {what}: unknown; {nearest(what, KINDS)}")
    if (like is not None) != (what == PREDICTIONS):
        raise UserError(
            f"import {what}: {'takes no --like' if like else 'needs --like KEY, the cell of the same samples'}"
        )
    if what == PREDICTIONS:
        lines, name = _predictions(path, output_dir, str(like), options)
    elif what == "csv":
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


def _predictions(path: Path, output_dir: Path, like: str, options: Options) -> tuple[list[str], str]:
    from blip2sweep.importing.predictions import import_predictions

    if options != Options(constants=options.constants):
        raise UserError(
            f"import {PREDICTIONS}: takes --like, --set and --output-dir alone; right: the other options with csv"
        )
    job = job_like(output_dir, like)
    found = import_predictions(path, output_dir, job, options.constants)
    lines = [f"{path}: {found.samples} samples as cell {found.key}, like {job['key']}"]
    lines += [f"  columns that are not used: {', '.join(found.unused)}"] if found.unused else []
    lines += [] if found.compared else [f"  no drop yet: the baseline {job['baseline']} is not done"]
    return lines, found.name


def job_like(output_dir: Path, key: str) -> CellJob:
    """The job of the cell whose key is, or begins with, this one. Raises UserError where none or several have it."""
    jobs = jobs_of(output_dir)
    found = [k for k in jobs if k.startswith(key)]
    if len(found) != 1:
        told = "no cell" if not found else f"{len(found)} cells"
        raise UserError(
            f"--like {key}: {told} of the sweeps in {output_dir} with that key; right: a key of `blip2sweep table`"
        )
    return jobs[found[0]]


def _study(path: Path, output_dir: Path, metrics: list[str]) -> list[str]:
    from blip2sweep.importing.blip2_coco import import_blip2_coco, summary

    for name in metrics:
        if name not in CAPTION_METRICS:
            raise UserError(f"--metrics {name}: unknown; {nearest(name, CAPTION_METRICS)}")
    return summary(import_blip2_coco(path, output_dir, metrics))
