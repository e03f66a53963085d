"""A recommended recipe's own run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pandas as pd

from blip2sweep.analysis.choice import Choice
from blip2sweep.errors import UserError
from blip2sweep.reporting.rerun import command_of
from blip2sweep.reporting.source import Source, load_source


def check_can_run(source: Source) -> None:
    if command_of(source).startswith("import"):
        raise UserError(
            "--verify: these rows were imported, so there is no set-up to run; right: model=… task=… with the recipe_file"
        )


def verified(source: Source, command: Sequence[str], choice: Choice) -> tuple[list[str], str]:
    """Run the recipe as a sweep of one cell. Returns its metric on all images, and on those of the expectation; and its
    key."""
    name = f"verify-{pd.Timestamp.now():%Y%m%d-%H%M%S}"
    words = [sys.executable, "-m", "blip2sweep", *command, f"sweep_name={name}"]
    if subprocess.run(words, check=False).returncode:
        raise UserError(f"--verify: the recipe's own run failed; right: `blip2sweep status {name}`")
    ran = load_source(source.output_dir, name)
    row, m = ran.cells[ran.cells["part"] != "none"].iloc[0], source.metric
    lines = [
        f"verified: {m} {row[m]:.4f}, drop {row[f'drop_{m}']:.4f} [{row[f'drop_{m}_low']:.4f}, {row[f'drop_{m}_high']:.4f}]"
    ]
    if choice.held_out and ran.draws is not None and row["key"] in ran.draws:
        again = ran.draws.value(row["key"], ran.draws.half(False))
        lines.append(f"on the half that did not choose it {m} {again:.4f}, where {choice.value:.4f} was expected")
    return lines, str(row["key"])
