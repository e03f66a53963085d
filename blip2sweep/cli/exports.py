"""The verbs that hand a model out. No logic here: each reads its arguments and calls a library function."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from blip2sweep.cli.running import DEFAULT, OutputDir
from blip2sweep.console.printing import say


def quantize(
    words: Annotated[
        list[str] | None,
        typer.Argument(help="A cell's key, or its beginning; a recipe file; or one cell as overrides."),
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", help="A new folder for the checkpoint.")] = None,
    config_dir: Annotated[Path | None, typer.Option(help="A folder with models and tasks of your own.")] = None,
    output_dir: OutputDir = DEFAULT,
) -> None:
    """Write one cell's compressed model, quantized, pruned or sparse, as a safetensors checkpoint, with its recipe.

    Its numbers are not packed: any program that loads the original loads it. `export` writes the packed bits.

    \b
      blip2sweep quantize 49e82300 --to out
      blip2sweep quantize recommended.yaml --to out
      blip2sweep quantize part=language quant=gptq quant.bits=4 --to out
    """
    from blip2sweep.commands.quantize import run_quantize

    say(*run_quantize(words or [], to, config_dir, output_dir))


def export(
    words: Annotated[
        list[str] | None,
        typer.Argument(help="A cell's key, or its beginning; a recipe file; or one cell as overrides."),
    ] = None,
    to: Annotated[
        tuple[str, Path] | None,
        typer.Option("--to", metavar="FORMAT DIR", help="compressed-tensors, openvino, onnx, …, and a new folder."),
    ] = None,
    purpose: Annotated[str | None, typer.Option("--for", help="Who is to serve it, such as vllm.")] = None,
    check: Annotated[
        Path | None, typer.Option(help="Only say whether an exported folder is as it was written.")
    ] = None,
    config_dir: Annotated[Path | None, typer.Option(help="A folder with models and tasks of your own.")] = None,
    output_dir: OutputDir = DEFAULT,
) -> None:
    """Write a cell's model with its own integers in a format that others load or serve.

    What the format cannot hold is said before anything is computed. The folder is written whole or not at all, with a
    README.md that says how it is loaded.

    \b
      blip2sweep export 49e82300 --to compressed-tensors out
      blip2sweep export 49e82300 --to compressed-tensors out --for vllm
      blip2sweep export recommended.yaml --to openvino out
      blip2sweep export part=language quant=gptq quant.bits=4 --to compressed-tensors out
    """
    from blip2sweep.commands.export import run_export

    say(*run_export(words or [], to, purpose, check, config_dir, output_dir))
