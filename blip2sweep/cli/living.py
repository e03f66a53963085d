"""Verbs for living with results: what there is, what is to be forgotten, folders put together. No logic here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from blip2sweep.cli.running import DEFAULT, OutputDir
from blip2sweep.console.printing import say


def sweeps(
    output_dir: OutputDir = DEFAULT,
    format: Annotated[str, typer.Option("--format", "-f", help="rich, or json.")] = "rich",
) -> None:
    """List the sweeps of a folder: age, cells, state, command."""
    from blip2sweep.commands.sweep_list import print_sweeps

    print_sweeps(output_dir, format)


def forget(
    what: Annotated[
        str | None, typer.Argument(metavar="KEY|SWEEP", help="A cell's key, or its beginning; or a sweep's name.")
    ] = None,
    undo: Annotated[
        bool, typer.Option("--undo", help="Take it back; without a name, what was forgotten last.")
    ] = False,
    output_dir: OutputDir = DEFAULT,
) -> None:
    """Leave a cell, or a sweep and its own cells, out of all tables. Nothing is removed, and --undo brings it back."""
    from blip2sweep.commands.forget import forget as run

    say(*run(output_dir, what, undo))


def merge(
    other: Annotated[Path, typer.Argument(metavar="OTHER", help="The output folder whose results are taken.")],
    output_dir: OutputDir = DEFAULT,
) -> None:
    """Take the results of another output folder into this one; a second time only what is new. OTHER stays as it is."""
    from blip2sweep.commands.merge import merge as run

    say(*run(other, output_dir))


def collect(output_dir: OutputDir = DEFAULT) -> None:
    """Make all tables anew from the journals, such as after files were copied by hand."""
    from blip2sweep.commands.collect import collect_all

    say(*collect_all(output_dir))
