"""The verbs. No logic here: each reads its arguments and calls a library function."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from blip2sweep.console.printing import say, say_text

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="blip2sweep: what can be compressed in a vision-language model, how far, and at what cost.",
)

OutputDir = Annotated[Path, typer.Option("--output-dir", envvar="BLIP2SWEEP_OUTPUT_DIR", help="Where results are.")]
DEFAULT = Path("outputs")


@app.command()
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
    conf/. `python -m blip2sweep --help` lists groups, keys and defaults. --output-dir DIR says which ledger is asked for
    what is done.
    """
    from blip2sweep.hydra_app import run_hydra

    run_hydra(overrides or [], plan_only=True)


SweepName = Annotated[str | None, typer.Argument(help="Sweep name; without one what was started last.")]
ResultsName = Annotated[
    str | None, typer.Argument(help="Sweep name; without one the newest of several cells, else the last run of one.")
]


@app.command()
def table(
    sweep: ResultsName = None,
    output_dir: OutputDir = DEFAULT,
    format: Annotated[str, typer.Option("--format", "-f", help="rich, csv (all columns), md or latex.")] = "rich",
    all_cells: Annotated[bool, typer.Option("--all", help="Every cell of the ledger.")] = False,
) -> None:
    """Print the table of a sweep."""
    from blip2sweep.commands.table import show_table

    show_table(output_dir, sweep, format, all_cells)


@app.command()
def status(sweep: SweepName = None, output_dir: OutputDir = DEFAULT) -> None:
    """Say how far a sweep is: done, running, queued, lost, failed by kind, rate, time left."""
    from blip2sweep.running.status import print_status

    print_status(output_dir, sweep)


@app.command()
def wait(sweep: SweepName = None, output_dir: OutputDir = DEFAULT) -> None:
    """Follow a sweep to its end, whoever started it, and print its table. Exit code 1 when cells failed."""
    from blip2sweep.commands.sweeps import wait as run

    run(output_dir, sweep)


@app.command()
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


@app.command()
def cancel(sweep: SweepName = None, output_dir: OutputDir = DEFAULT) -> None:
    """End a sweep's jobs; what is done is kept."""
    from blip2sweep.commands.sweeps import cancel as run

    run(output_dir, sweep)


@app.command()
def logs(
    key: Annotated[str, typer.Argument(help="A cell's key, or its beginning.")], output_dir: OutputDir = DEFAULT
) -> None:
    """Print what is known of a cell's attempts: where they ran, how they ended, what they wrote."""
    from blip2sweep.commands.sweeps import logs as run

    say_text(run(output_dir, key))


@app.command()
def score(
    file: Annotated[Path, typer.Argument(help="Predictions: COCO or VQA results JSON, JSONL, CSV or parquet.")],
    references: Annotated[Path, typer.Option("--references", "-r", help="COCO captions or VQAv2 annotations JSON.")],
    subset: Annotated[
        bool, typer.Option("--subset", help="Score the ids that the predictions have, as COCOEvalCap does.")
    ] = False,
) -> None:
    """Score any predictions file; prints one JSON object with the table's column names."""
    from blip2sweep.metrics import score_file

    say_text(json.dumps(score_file(file, references, subset)))


@app.command()
def rescore(output_dir: OutputDir = DEFAULT) -> None:
    """Compute metrics that are missing, or of an older scorer, without inference."""
    from blip2sweep.commands.rescore import rescore as run

    say_text(run(output_dir))


@app.command()
def cache(
    what: Annotated[
        str, typer.Argument(help="info, or clear to remove all entries; results are not touched.")
    ] = "info",
    output_dir: OutputDir = DEFAULT,
) -> None:
    """Say how large the store of shared work is, or empty it."""
    from blip2sweep.cache.disk import verb

    say_text(verb(output_dir, what))


@app.command()
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
    raise typer.Exit(print_checks(output_dir, config))


@app.command("import")
def import_results(
    what: Annotated[str, typer.Argument(help="blip2-coco (the published study), or csv.")],
    path: Annotated[Path, typer.Argument(help="The study's folder, or the CSV file.")],
    metrics: Annotated[str, typer.Option(help="blip2-coco: metrics to score again, for intervals.")] = "cider",
    model: Annotated[
        str | None, typer.Option(help="csv: the rows' model; else its column, else blip2-opt-2.7b.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="csv: the rows' task; else its column, else coco_caption.")] = None,
    params: Annotated[
        int | None, typer.Option(help="csv: parameters of the whole model, where not as shipped.")
    ] = None,
    columns: Annotated[
        list[str] | None, typer.Option(help="csv: MEANING=COLUMN, such as bits='W bits'; MEANING= for no column.")
    ] = None,
    constants: Annotated[
        list[str] | None,
        typer.Option("--set", help="csv: MEANING=VALUE for every line, such as part=language or method=gptq."),
    ] = None,
    scale: Annotated[
        list[str] | None, typer.Option(help="csv: METRIC=100 where its column has percentages, METRIC=1 where not.")
    ] = None,
    decimal: Annotated[
        str | None, typer.Option(help="csv: comma or point, where numbers such as 1,234 may be either.")
    ] = None,
    output_dir: OutputDir = DEFAULT,
) -> None:
    """Take results of others into the ledger: what was really done, no-ops marked, duplicates merged."""
    from blip2sweep.commands.import_results import import_what
    from blip2sweep.importing.table_csv import Options

    options = Options(model, task, params, tuple(columns or ()), tuple(constants or ()), tuple(scale or ()), decimal)
    say(*import_what(what, path, output_dir, metrics, options))


AllCells = Annotated[bool, typer.Option("--all", help="Every cell of the ledger.")]
Only = Annotated[str | None, typer.Option(help="Only cells of this one.")]
Columns = Annotated[
    list[str] | None,
    typer.Option("--only", help="COLUMN=VALUE: only cells of this dtype, data, generation, weights, …."),
]


@app.command()
def report(
    sweep: ResultsName = None,
    output_dir: OutputDir = DEFAULT,
    all_cells: AllCells = False,
    model: Only = None,
    task: Only = None,
    only: Columns = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The page; by default in the sweep's folder.")] = None,
    png: Annotated[bool, typer.Option(help="The figures as PNG too.")] = False,
    pdf: Annotated[bool, typer.Option(help="The figures as PDF too.")] = False,
    wandb: Annotated[str | None, typer.Option(help="Send rows and report to W&B: online or offline.")] = None,
    project: Annotated[str, typer.Option(help="The W&B project.")] = "blip2sweep",
) -> None:
    """Write one HTML page: where the model breaks, which part matters, what is safe, what the outputs look like."""
    from blip2sweep.commands.report import check_sending, send
    from blip2sweep.commands.report import report as run
    from blip2sweep.reporting.source import load_source, narrowing

    if wandb:
        check_sending(wandb, all_cells)
    source = load_source(output_dir, sweep, all_cells, narrowing(model, task, only or []))
    say(*source.meant, *run(source, out, png, pdf))
    if wandb:
        say_text(send(source, wandb, project))


@app.command()
def recommend(
    sweep: ResultsName = None,
    output_dir: OutputDir = DEFAULT,
    all_cells: AllCells = False,
    model: Only = None,
    task: Only = None,
    only: Columns = None,
    max_bytes: Annotated[str | None, typer.Option(help="Size of the whole model, such as 2GB.")] = None,
    max_drop: Annotated[str | None, typer.Option(help="Share of the baseline, such as 2%.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The recipe file.")] = None,
    verify: Annotated[bool, typer.Option(help="Run the recipe and say what it scored.")] = False,
) -> None:
    """The best recipe under a budget: chosen on one half of the images, reported on the other."""
    from blip2sweep.commands.recommend import run_recommend
    from blip2sweep.reporting.source import load_source, narrowing

    source = load_source(output_dir, sweep, all_cells, narrowing(model, task, only or []))
    lines = run_recommend(source, max_bytes, max_drop, out, verify)
    say(*source.meant, *lines)


@app.command()
def suggest(
    sweep: ResultsName = None,
    output_dir: OutputDir = DEFAULT,
    all_cells: AllCells = False,
    model: Only = None,
    task: Only = None,
    only: Columns = None,
    n: Annotated[int, typer.Option("-n", help="How many cells.")] = 10,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the recipe files.")] = None,
) -> None:
    """The cells to run next: those that would teach the most about all the others."""
    from blip2sweep.commands.suggest import run_suggest
    from blip2sweep.reporting.source import load_source, narrowing

    source = load_source(output_dir, sweep, all_cells, narrowing(model, task, only or []))
    lines = run_suggest(source, n, out)
    say(*source.meant, *lines)


@app.command()
def quantize(
    overrides: Annotated[list[str], typer.Argument(help="One cell, such as part=language quant=gptq quant.bits=4.")],
    to: Annotated[Path, typer.Option("--to", help="A new folder for the checkpoint.")],
    config_dir: Annotated[Path | None, typer.Option(help="A folder with models and tasks of your own.")] = None,
    output_dir: OutputDir = DEFAULT,
) -> None:
    """Write one cell's quantized model as a safetensors checkpoint, with its recipe."""
    from blip2sweep.commands.quantize import write_checkpoint
    from blip2sweep.config.standalone import compose_cell

    config = compose_cell(overrides, config_dir, {"output_dir": str(output_dir)})
    say_text(write_checkpoint(config, to))
