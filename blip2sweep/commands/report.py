"""The command `report`: writes the page of an output folder, its CSVs and its pictures, and sends rows to W&B."""

from __future__ import annotations

from pathlib import Path

from blip2sweep.errors import UserError
from blip2sweep.reporting.figures import label
from blip2sweep.reporting.html import build_report
from blip2sweep.reporting.source import Source
from blip2sweep.reporting.static import write_static
from blip2sweep.reporting.tracking import MODES, track
from blip2sweep.results.sweeps import find_sweep


def report(source: Source, path: Path | None, png: bool, pdf: bool) -> list[str]:
    """Write the page, its CSVs and the requested pictures. Prints their paths."""
    path = path or source.folder / "report.html"
    if path.is_dir():
        raise UserError(f"--out {path}: is a folder; right: the page's file, such as {path / 'report.html'}")
    made = build_report(source, path)
    folder = path.with_name(path.stem + "-data")
    pictures = [p for kind, wanted in (("png", png), ("pdf", pdf)) if wanted
                for p in write_static(made, folder, kind, label(source))]  # fmt: skip
    size = path.stat().st_size / 1e6
    return [f"wrote {path} ({size:.1f} MB)", f"wrote {folder} (a CSV a figure)", *(f"wrote {p}" for p in pictures)]


def check_sending(mode: str, all_cells: bool) -> None:
    """Refuse what cannot be sent, before anything is written."""
    if all_cells:
        raise UserError(
            "--wandb: rows are sent sweep by sweep, so not with --all; right: blip2sweep report SWEEP --wandb …"
        )
    if mode not in MODES:
        raise UserError(f"--wandb {mode}: right: {' or '.join(MODES)}")


def send(source: Source, mode: str, project: str) -> str:
    """Send the rows of a sweep to W&B. Rows that were sent before are left out."""
    settings = {"name": "wandb", "mode": mode, "project": project}
    sweep = find_sweep(source.output_dir, source.title)
    rows = track(source.output_dir, sweep, source.table, settings)
    again = (
        f"; from a computer with network: wandb sync {source.output_dir}/wandb/offline-run-*"
        if mode == "offline"
        else ""
    )
    return f"{rows} rows of {sweep.name} are in W&B project {project} ({mode}){again}"
