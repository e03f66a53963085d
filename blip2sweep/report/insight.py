"""The verbs `report` and `recommend`: from an output folder to a page, a recipe file, and its run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from blip2sweep.analysis.recommend import Choice, recipe_file, recommend
from blip2sweep.errors import UserError
from blip2sweep.report.commands import command_of, context
from blip2sweep.report.figures import LABELS, label
from blip2sweep.report.html import build_report
from blip2sweep.report.source import Source, load_source
from blip2sweep.report.static import write_static
from blip2sweep.store import write_atomic

POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def report(source: Source, path: Path | None, png: bool, pdf: bool) -> list[str]:
    """Write the page, its CSVs and the pictures that were asked for. Says where they are."""
    path = path or source.folder / "report.html"
    made = build_report(source, path)
    folder = path.with_name(path.stem + "-data")
    pictures = [p for kind, wanted in (("png", png), ("pdf", pdf)) if wanted
                for p in write_static(made, folder, kind, label(source))]  # fmt: skip
    size = path.stat().st_size / 1e6
    return [f"wrote {path} ({size:.1f} MB)", f"wrote {folder} (a CSV a figure)", *(f"wrote {p}" for p in pictures)]


def send(source: Source, mode: str, project: str) -> str:
    """Send a sweep's rows to W&B; what was sent before is left out."""
    from blip2sweep.report.tracking import check_tracking, track
    from blip2sweep.sweep.sweeps import find_sweep

    settings = {"name": "wandb", "mode": mode, "project": project}
    check_tracking(settings)
    sweep = find_sweep(source.output_dir, source.title)
    rows = track(source.output_dir, sweep, source.table, settings)
    again = (
        f"; from a computer with network: wandb sync {source.output_dir}/wandb/offline-run-*"
        if mode == "offline"
        else ""
    )
    return f"{rows} rows of {sweep.name} are in W&B project {project} ({mode}){again}"


def parse_bytes(text: str) -> int:
    """`2GB`, `750 MB`, `123456` -> bytes, powers of ten; `2GiB` powers of 1024."""
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(?:([kmgt]?)b?|([kmgt])ib?)\s*", text.lower())
    if not found:
        raise UserError(f"--max-bytes {text}: not a size; right: 2GB, 1.5GiB or a number of bytes")
    number, decimal, binary = found.groups()
    return int(float(number) * (1024 ** POWERS[binary] if binary else 1000 ** POWERS[decimal or ""]))


def parse_drop(text: str) -> float:
    """`2%` or `0.02` -> share of the baseline, below 1."""
    found = re.fullmatch(r"\s*(\d*\.?\d+)\s*(%?)\s*", text)
    if not found:
        raise UserError(f"--max-drop {text}: not a share; right: 2% or 0.02")
    share = float(found[1]) / (100 if found[2] else 1)
    if share >= 1:
        meant = f"{found[1]}% or {float(found[1]) / 100:g}" if not found[2] and float(found[1]) < 100 else "2% or 0.02"
        raise UserError(f"--max-drop {text}: the whole baseline or more; right: {meant}")
    return share


def run_recommend(
    source: Source, max_bytes: str | None, max_drop: str | None, path: Path | None, verify: bool
) -> list[str]:
    """Choose a recipe, write its file and say what to expect; with `verify`, run it."""
    if not max_bytes and not max_drop:
        raise UserError("recommend: no budget given; right: --max-bytes 2GB, --max-drop 2%, or both")
    budget = parse_bytes(max_bytes) if max_bytes else None
    drop = parse_drop(max_drop) if max_drop else None
    if verify:
        _check_can_run(source)
    choice = recommend(source.cells, source.metric, source.draws, source.known_anatomy, budget, drop)
    path = path or source.folder / "recommended.yaml"
    told = {"budget": " ".join(w for w in (max_bytes and f"--max-bytes {max_bytes}", max_drop and f"--max-drop {max_drop}") if w),
            "from": f"{source.title}, {len(source.cells)} cells", "expected": _expected(choice, source.metric)}  # fmt: skip
    write_atomic(path, recipe_file(choice, told).encode())
    lines = [*_said(choice, source), *_over_limit(choice, drop), f"wrote {path}"]
    if not choice.entries:
        return [*lines, "nothing to run: it is the baseline"]
    try:
        command = [*_context(source, choice), f"recipe_file={path}"]
    except UserError as error:
        if verify:
            raise
        return [*lines, f"run it with recipe_file={path}; {error}"]
    lines.append(f"run it: python -m blip2sweep {shlex.join(command)}")
    return [*lines, *(_verified(source, command) if verify else [])]


def _context(source: Source, choice: Choice) -> list[str]:
    own = source.cells[source.cells["setting"] == choice.setting]
    return context(source, [choice.entries], own.iloc[0].to_dict())


def _expected(choice: Choice, metric: str) -> str:
    half = "the half of the images that did not choose it" if choice.held_out else "all images, which also chose it"
    return f"{metric} {choice.predicted:.4f} (baseline {choice.baseline:.4f}) by prediction on {half}"


def _said(choice: Choice, source: Source) -> list[str]:
    lines = [f"{e['target']}: {e['method']} {e['bits']} bits" for e in choice.entries] or ["nothing is compressed"]
    size = f"{choice.model_bytes:,} bytes, {choice.bits_per_weight:.2f} bits per weight"
    lines += [size, f"expected {_expected(choice, LABELS.get(source.metric, source.metric))}"]
    if choice.measured_key and source.draws is not None and choice.measured_key in source.draws:
        other = source.draws.on(source.draws.half(False))
        low, high = np.quantile(other.drop(choice.measured_key), [0.025, 0.975])
        drop = other.sign * (other.value(other.baseline) - other.value(choice.measured_key))
        lines.append(f"measured on held-out images: drop {drop:.4f} [{low:.4f}, {high:.4f}]")
    return lines


def _over_limit(choice: Choice, max_drop: float | None) -> list[str]:
    """What a reader must know of a limit that is not, or may not be, kept."""
    if max_drop is None:
        return []
    if not choice.within:
        return [
            f"the limit of {max_drop:.1%} is NOT kept: {choice.chosen_drop:.1%} is the least loss that was found; "
            "right: a larger limit or size, or more cells (blip2sweep suggest)"
        ]
    held_out = choice.predicted_drop / choice.baseline
    return (
        [f"on the other half {held_out:.1%} is predicted, above the limit of {max_drop:.1%}"]
        if held_out > max_drop
        else []
    )


# ---- running it


def _check_can_run(source: Source) -> None:
    if command_of(source).startswith("import"):
        raise UserError(
            "--verify: these rows were imported, so there is no set-up to run; right: model=… task=… with the recipe_file"
        )


def _verified(source: Source, command: Sequence[str]) -> list[str]:
    """Run the recipe as any cell is run, and read its row."""
    name = f"verify-{pd.Timestamp.now():%Y%m%d-%H%M%S}"
    words = [sys.executable, "-m", "blip2sweep", *command, f"sweep_name={name}"]
    if subprocess.run(words, check=False).returncode:
        raise UserError(f"--verify: the recipe's own run failed; right: `blip2sweep status {name}`")
    rows = load_source(source.output_dir, name).cells
    row, m = rows[rows["part"] != "none"].iloc[0], source.metric
    return [
        f"verified: {m} {row[m]:.4f}, drop {row[f'drop_{m}']:.4f} [{row[f'drop_{m}_low']:.4f}, {row[f'drop_{m}_high']:.4f}]"
    ]
