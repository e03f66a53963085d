"""Verbs about what runs: plans, sweeps in progress, this machine. No logic here: each reads its arguments and calls a library function."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from blip2sweep.console.printing import say, say_text

OutputDir = Annotated[Path, typer.Option("--output-dir", envvar="BLIP2SWEEP_OUTPUT_DIR", help="Where results are.")]
DEFAULT = Path("outputs")


def plan(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="What a sweep takes: key=value, and flags of Hydra.")
    ] = None,
) -> None:
    """Say what a sweep would do; nothing is written, submitted or loaded.

    Every cell with its key, what it does to the model and whether the ledger has it; what is skipped and why; into how
    many packs the rest is divided and about how long they take; with Slurm the sbatch script.

    \b
      blip2sweep plan quant.bits=2,4 part=vision,language
      blip2sweep plan +study=part_wise model=blip2-opt-2.7b task=coco_caption hydra/launcher=slurm

    Overrides are those of the sweep itself, so that the same words with `python -m blip2sweep -m` run it: key=value sets a
    key, key=a,b,c makes a cell of each, several lists multiply, group=option (model=, quant=, task=, study=) takes a file of
    conf/. `blip2sweep --help` lists them by topic. --output-dir DIR says which ledger is asked for
    what is done. Of a large sweep the first and the last cells are listed; with --all-cells every one.
    """
    from blip2sweep.hydra_app import run_hydra

    run_hydra(overrides or [], "plan")


def screen(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="What a sweep takes: key=value, and flags of Hydra.")
    ] = None,
) -> None:
    """Find the frontier of size and metric of a grid, and run no more of it than that takes.

    The baseline runs whole. Then rounds of cells see a few images each; after each round all others are predicted, and
    those that may be on the frontier are chosen by what they teach for each second. In the end the cells of the frontier
    run on all images, and a table shows them with what comes next.

    \b
      blip2sweep screen --plan quant.bits=3,4,5,6,8 part=vision,language,all
      blip2sweep screen quant.bits=3,4,5,6,8 part=vision,language,all sweep_name=mine
      blip2sweep screen … hydra/launcher=slurm

    Overrides are those of a sweep of the whole grid. --plan says what would be done, and runs nothing.
    evaluation.half_width=10% sets how closely a cell is known at its first look. Results are those of any sweep: in the
    same ledger, under the same keys. Ctrl-C loses at most the cells in hand, and the same command goes on.
    """
    from blip2sweep.hydra_app import run_hydra

    run_hydra(overrides or [], "screen")


SweepName = Annotated[str | None, typer.Argument(help="Sweep name; without one what was started last.")]


def status(sweep: SweepName = None, output_dir: OutputDir = DEFAULT) -> None:
    """Say how far a sweep is: done, running, queued, lost, failed by kind, rate, time left."""
    from blip2sweep.running.status import print_status

    print_status(output_dir, sweep)


def wait(sweep: SweepName = None, output_dir: OutputDir = DEFAULT) -> None:
    """Follow a sweep to its end, whoever started it, and print its table. Exit code 1 when cells failed."""
    from blip2sweep.commands.sweeps import wait as run

    run(output_dir, sweep)


def retry(
    sweep: SweepName = None,
    output_dir: OutputDir = DEFAULT,
    failed: Annotated[
        str | None,
        typer.Option("--failed", help="Only these kinds: oom,timeout,preempted,disk_full,crash,bad_config,lost."),
    ] = None,
    then_wait: Annotated[
        bool, typer.Option("--wait", help="Follow the jobs instead of returning when they are queued.")
    ] = False,
) -> None:
    """Run again what has no result and no live job, as the sweep was launched."""
    from blip2sweep.commands.sweeps import retry as run

    run(output_dir, sweep, failed, then_wait)


def ask(
    sweep: SweepName = None,
    output_dir: OutputDir = DEFAULT,
    base_url: Annotated[
        str | None, typer.Option("--base-url", help="The endpoint, in place of the sweep's chat.base_url.")
    ] = None,
) -> None:
    """Ask the chat model what cells of a sweep wait for, on a machine with a network; no model is loaded.

    Replies are kept one by one, so Ctrl-C loses none, and the same command goes on. Cells that then have all they need
    are finished and scored; `blip2sweep retry` runs those that need the vision-language model again. The endpoint's key
    is read from OPENAI_API_KEY.
    """
    from blip2sweep.commands.ask import ask as run

    run(output_dir, sweep, base_url)


def cancel(sweep: SweepName = None, output_dir: OutputDir = DEFAULT) -> None:
    """End a sweep's jobs; what is done is kept."""
    from blip2sweep.commands.sweeps import cancel as run

    run(output_dir, sweep)


def logs(
    key: Annotated[str, typer.Argument(help="A cell's key, or its beginning.")], output_dir: OutputDir = DEFAULT
) -> None:
    """Print what is known of a cell's attempts: where they ran, how they ended, what they wrote."""
    from blip2sweep.commands.sweeps import logs as run

    say_text(run(output_dir, key))


def cache(
    what: Annotated[
        str, typer.Argument(help="info, or clear to remove all entries; results are not touched.")
    ] = "info",
    output_dir: OutputDir = DEFAULT,
) -> None:
    """Say how large the store of shared work is, or empty it."""
    from blip2sweep.cache.disk import verb

    say_text(verb(output_dir, what))


def doctor(
    more: Annotated[list[str] | None, typer.Argument(help="Further overrides, such as model.path=FOLDER.")] = None,
    model: Annotated[str | None, typer.Option(help="Check what a cell of this model needs.")] = None,
    task: Annotated[str | None, typer.Option(help="Check what a cell of this task needs.")] = None,
    anchor: Annotated[
        str | None, typer.Option(help="Run a baseline with known numbers: seed, opt-2.7b-coco, …")
    ] = None,
    config_dir: Annotated[Path | None, typer.Option(help="A folder with models and tasks of your own.")] = None,
    output_dir: OutputDir = DEFAULT,
) -> None:
    """Look for everything a sweep needs; exit code 1 when something it cannot do without is missing."""
    from blip2sweep.commands.doctor import print_checks

    if anchor:
        from blip2sweep.doctor.anchors import run_anchor

        lines, reached = run_anchor(anchor, output_dir, more or [])
        say(*lines)
        raise typer.Exit(0 if reached else 1)
    config = None
    if model or task or more:
        from blip2sweep.config.standalone import compose_cell

        chosen = {k: v for k, v in (("model", model), ("task", task)) if v}
        config = compose_cell(more or [], config_dir, chosen)
    elif config_dir:
        from blip2sweep.config.standalone import composer

        composer(config_dir)
    raise typer.Exit(print_checks(output_dir, config))
