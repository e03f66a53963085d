"""The command `report`: writes the page of an output folder, its CSVs and its pictures, and sends rows to W&B."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from blip2sweep.errors import UserError
from blip2sweep.reporting.figure import label
from blip2sweep.reporting.html import build_report
from blip2sweep.reporting.models_page import Written, write_models_page
from blip2sweep.reporting.source import Source
from blip2sweep.reporting.sources import Sources
from blip2sweep.reporting.static import write_static
from blip2sweep.reporting.tracking import MODES, track
from blip2sweep.reporting.wandb_places import offline_runs
from blip2sweep.results.sweeps import find_sweep


def report(sources: Sources, path: Path | None, png: bool, pdf: bool) -> list[str]:
    """Write the page, its CSVs and the requested pictures. Returns the lines that say where they are."""
    path = path or sources.page
    if path.is_dir():
        raise UserError(f"--out {path}: is a folder; right: the page's file, such as {path / 'report.html'}")
    made = write_models_page(sources, path) if sources.several else [_one_page(sources.models[0], path)]
    pictures = [p for kind, wanted in (("png", png), ("pdf", pdf)) if wanted
                for own in made for p in write_static(own.figures, own.folder, kind, own.metric)]  # fmt: skip
    size = path.stat().st_size / 1e6
    each = f", in a folder a {sources.kind}" if sources.several else ""
    return [
        f"wrote {path} ({size:.1f} MB)",
        f"wrote {made[0].folder} (a CSV a figure{each})",
        *(f"wrote {p}" for p in pictures),
    ]


def _one_page(source: Source, path: Path) -> Written:
    return Written(path.with_name(path.stem + "-data"), build_report(source, path), label(source))


def check_asked(names: Sequence[str], wandb: str | None, all_cells: bool) -> None:
    """Refuse what cannot be asked for together, before anything is written. wandb: how rows are to be sent, if they are."""
    if len(names) > 1:
        given = [option for option, there in (("--all", all_cells), ("--wandb", wandb)) if there]
        if given:
            raise UserError(
                f"report {' '.join(names)} {' '.join(given)}: two are put side by side as they are; right: without {' and '.join(given)}"
            )
        return
    if all_cells:
        raise UserError(
            "--wandb: rows are sent sweep by sweep, so not with --all; right: blip2sweep report SWEEP --wandb …"
        )
    if wandb not in MODES:
        raise UserError(f"--wandb {wandb}: right: {' or '.join(MODES)}")


def send(sources: Sources, mode: str, project: str) -> str:
    """Send the rows of a sweep to W&B. Rows that were sent before are left out."""
    settings = {"name": "wandb", "mode": mode, "project": project}
    output_dir, sweep = sources.selection.output_dir, find_sweep(sources.selection.output_dir, sources.selection.title)
    rows = track(output_dir, sweep, sources.table, settings)
    sent = f"{rows} rows of {sweep.name} are in W&B project {project} ({mode})"
    return "\n".join([sent, *offline_runs(output_dir, settings)])
