"""The verb about lmms-eval. No logic here."""

from __future__ import annotations

import typer

from blip2sweep.console.printing import say_text

lmms = typer.Typer(no_args_is_help=True, help="Exchange tasks with lmms-eval, by files (docs/your_data.md).")


@lmms.command()
def bridge() -> None:
    """Print a program for the environment of lmms-eval, which exports its tasks and scores answers to them.

    It needs lmms-eval alone: this package is not installed there, and lmms-eval is not installed here.

    \b
      blip2sweep lmms bridge > lmms_bridge.py
      python lmms_bridge.py export TASK FOLDER
      blip2sweep -m task=jsonl task.data_dir=FOLDER generation.prompt='{}'
      python lmms_bridge.py score FOLDER outputs/predictions/KEY-*.json
    """
    from blip2sweep.commands.lmms import program

    say_text(program().rstrip("\n"))
