"""The verbs about models. No logic here: each reads its arguments and calls a library function."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from blip2sweep.cli.running import DEFAULT, OutputDir
from blip2sweep.console.printing import say, say_text

model = typer.Typer(
    no_args_is_help=True, help="Say which models are known, or propose a YAML for a checkpoint of another one."
)


@model.command("list")
def list_models() -> None:
    """Say which models conf/model has: name, model_type, and where the weights are looked for."""
    from blip2sweep.commands.model import known

    say(*known())


@model.command()
def add(
    folder: Annotated[Path, typer.Argument(help="A checkpoint in the Hugging Face layout: config.json, processor.")],
    config_dir: Annotated[
        Path | None, typer.Option(help="Write DIR/model/NAME.yaml there; without it the YAML is printed.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name; the folder's by default.")] = None,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Also where most weights in blocks are in no linear layer.")
    ] = False,
) -> None:
    """Propose a YAML for a checkpoint that no model of conf/model fits.

    Its lists of blocks and layers are read from the module tree. A small random model of the same structure shows which layers
    reach the output, and that this package computes what the model's own generate does. What stays unclear is refused, with
    the reason. Weights are not read.

    \b
      blip2sweep model add checkpoints/mine --config-dir site
      python -m blip2sweep --config-dir site -m model=mine part=vision,language quant.bits=3,4
    """
    from blip2sweep.commands.model import add as run

    say_text(run(folder, config_dir, name, allow_partial))


def influence(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="A cell, such as model=blip2-opt-2.7b task=coco_caption.")
    ] = None,
    config_dir: Annotated[Path | None, typer.Option(help="A folder with models and tasks of your own.")] = None,
    output_dir: OutputDir = DEFAULT,
) -> None:
    """Say how much each block turns what passes through it; drop_blocks=part:2@influence chooses by it.

    It is measured on the calibration samples, on a GPU where there is one, and kept in the output folder. A sweep that
    asks for it measures it while it is planned; this measures it ahead, on another machine.
    """
    from blip2sweep.commands.influence import print_influence
    from blip2sweep.config.standalone import compose_cell

    config = compose_cell(overrides or [], config_dir, {"output_dir": str(output_dir)})
    say(*print_influence(config))
