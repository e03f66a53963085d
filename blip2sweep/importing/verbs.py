"""`blip2sweep import WHAT PATH`."""

from __future__ import annotations

from pathlib import Path

from blip2sweep.collect import collect
from blip2sweep.errors import UserError, nearest
from blip2sweep.metrics import CAPTION_METRICS
from blip2sweep.sweep.sweeps import find_sweep

KINDS = ("blip2-coco", "csv")


def import_what(
    what: str,
    path: Path,
    output_dir: Path,
    metrics: str,
    model: str | None = None,
    task: str | None = None,
    params: int | None = None,
) -> list[str]:
    """Import, collect, and say what was found."""
    if what not in KINDS:
        raise UserError(f"import {what}: unknown; {nearest(what, KINDS)}")
    if what == "csv":
        from blip2sweep.importing.table_csv import import_csv

        cells, unused = import_csv(path, output_dir, model, task, params)
        lines, name = [f"{path}: {cells} cells"], f"csv-{path.stem}"
        lines += [f"  columns that are not used: {', '.join(unused)}"] if unused else []
    else:
        lines, name = _study(path, output_dir, metrics.split(",")), "blip2-coco"
    sweep = find_sweep(output_dir, name)
    collect(output_dir, sweep, anew=sweep.keys)
    return [*lines, f"wrote {output_dir}/sweeps/{name}; next: blip2sweep report {name} --output-dir {output_dir}"]


def _study(path: Path, output_dir: Path, metrics: list[str]) -> list[str]:
    from blip2sweep.importing.blip2_coco import import_blip2_coco, summary

    for name in metrics:
        if name not in CAPTION_METRICS:
            raise UserError(f"--metrics {name}: unknown; {nearest(name, CAPTION_METRICS)}")
    return summary(import_blip2_coco(path, output_dir, metrics))
