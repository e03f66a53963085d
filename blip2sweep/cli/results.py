"""Verbs about results: tables, scores, reports, recipes. No logic here: each reads its arguments and calls a library function."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from blip2sweep.cli.running import DEFAULT, OutputDir
from blip2sweep.console.printing import say, say_text

ResultsName = Annotated[
    str | None, typer.Argument(help="Sweep name; without one the newest of several cells, else the last run of one.")
]
AllCells = Annotated[bool, typer.Option("--all", help="Every cell; the largest kind where cells are compared.")]
Only = Annotated[str | None, typer.Option(help="Only cells of this one.")]
Columns = Annotated[
    list[str] | None,
    typer.Option("--only", help="COLUMN=VALUE: only cells of this dtype, data, generation, weights, …."),
]


def table(
    sweep: ResultsName = None,
    output_dir: OutputDir = DEFAULT,
    format: Annotated[
        str, typer.Option("--format", "-f", help="rich, md, latex; or csv, json, which have every column.")
    ] = "rich",
    all_cells: AllCells = False,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", "-w", help="Such as 'bits<=4', in quotes for the shell; null is unknown."),
    ] = None,
    columns: Annotated[str | None, typer.Option(help="The columns to show, with commas (docs/columns.md).")] = None,
    sort: Annotated[str | None, typer.Option(help="Columns to sort by, with commas; -COLUMN descends.")] = None,
    pivot: Annotated[
        str | None, typer.Option(help="ROWS,COLUMN, such as part,bits: a row for each part, a column for each width.")
    ] = None,
    value: Annotated[str | None, typer.Option(help="What stands in a pivot; by default the main metric.")] = None,
    digits: Annotated[int | None, typer.Option(help="Digits after the point.")] = None,
    best: Annotated[bool, typer.Option("--best", help="The best of each column in bold.")] = False,
    caption: Annotated[str | None, typer.Option(help="LaTeX: the caption, as plain text.")] = None,
    label: Annotated[str | None, typer.Option(help="LaTeX: the label, such as tab:drops.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A file: .csv, .json, .md or .tex.")] = None,
) -> None:
    """Print the table of a sweep: for a terminal, a program or a paper."""
    from blip2sweep.commands.table import show_table
    from blip2sweep.reporting.table_asked import Asked

    asked = Asked(format, where or (), columns, sort, pivot, value, digits, best, caption, label, out)
    show_table(output_dir, sweep, all_cells, asked)


def answers(
    key: Annotated[str, typer.Argument(help="A cell's key, or its beginning.")],
    form: Annotated[str, typer.Option(help="vqav2: question_id and answer; vizwiz: image and answer.")] = "vqav2",
    processor: Annotated[str, typer.Option(help="none, or evalai: rewritten first, as LLaVA's scripts do.")] = "none",
    fill: Annotated[
        Path | None, typer.Option(help="A question file: an empty answer to each further question in it.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file; by default in OUTPUT_DIR/answers/.")
    ] = None,
    output_dir: OutputDir = DEFAULT,
) -> None:
    """Write a cell's answers as the server of a challenge reads them, such as VQAv2's test-dev."""
    from blip2sweep.commands.answers import write_answers

    say_text(write_answers(output_dir, key, form, processor, fill, out))


def score(
    file: Annotated[Path, typer.Argument(help="Predictions: COCO or VQA results JSON, JSONL, CSV or parquet.")],
    references: Annotated[Path, typer.Option("--references", "-r", help="COCO captions or VQAv2 annotations JSON.")],
    subset: Annotated[
        bool, typer.Option("--subset", help="Score the ids that the predictions have, as COCOEvalCap does.")
    ] = False,
    rule: Annotated[str | None, typer.Option(help="Of answers: by which rule, or rules with commas.")] = None,
    lemmatize: Annotated[str | None, typer.Option(help="Of answers: none, or spacy for lemmas of its model.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Of captions: by which tokenizer.")] = None,
) -> None:
    """Score any predictions file; prints one JSON object with the table's column names."""
    from blip2sweep.metrics import score_file

    chosen = {"rule": rule, "lemmatize": lemmatize, "tokenizer": tokenizer}
    scoring = {name: [v.strip() for v in values.split(",")] for name, values in chosen.items() if values}
    say_text(json.dumps(score_file(file, references, subset, scoring)))


def rescore(
    sweep: Annotated[str | None, typer.Argument(help="A sweep whose cells alone are scored; all: every cell.")] = None,
    output_dir: OutputDir = DEFAULT,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="task.rule=lavis: another rule of scoring, which the sweep asks for from now on."),
    ] = None,
) -> None:
    """Compute metrics that are missing, of an older scorer, or of another rule, without inference."""
    from blip2sweep.commands.rescore import rescore as run

    say_text(run(output_dir, sweep, settings or []))


def import_results(
    what: Annotated[str, typer.Argument(help="blip2-coco (the published study), csv, or predictions.")],
    path: Annotated[Path, typer.Argument(help="The study's folder, or the file.")],
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
        typer.Option(
            "--set", help="csv: MEANING=VALUE of all lines, such as part=language. predictions: backend=vllm."
        ),
    ] = None,
    scale: Annotated[
        list[str] | None, typer.Option(help="csv: METRIC=100 where its column has percentages, METRIC=1 where not.")
    ] = None,
    decimal: Annotated[
        str | None, typer.Option(help="csv: comma or point, where numbers such as 1,234 may be either.")
    ] = None,
    like: Annotated[str | None, typer.Option(help="predictions: the key of a cell of the same samples.")] = None,
    output_dir: OutputDir = DEFAULT,
) -> None:
    """Take results of others into the ledger: what was really done, no-ops marked, duplicates merged."""
    from blip2sweep.commands.import_results import import_what
    from blip2sweep.importing.table_csv import Options

    options = Options(model, task, params, tuple(columns or ()), tuple(constants or ()), tuple(scale or ()), decimal)
    say(*import_what(what, path, output_dir, metrics, options, like))


def report(
    sweeps: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SWEEP] [OTHER]", help="Sweep name, as of table. Two sweeps or two models: side by side."
        ),
    ] = None,
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
    from blip2sweep.commands.report import check_asked, send
    from blip2sweep.commands.report import report as run
    from blip2sweep.reporting.pair import load_pair
    from blip2sweep.reporting.source import narrowing
    from blip2sweep.reporting.sources import load_sources

    names, narrowed = sweeps or [], narrowing(model, task, only or [])
    if wandb or len(names) > 1:
        check_asked(names, wandb, all_cells)
    sweep = next(iter(names), None)
    sources = (
        load_pair(output_dir, names, narrowed)
        if len(names) > 1
        else load_sources(output_dir, sweep, all_cells, narrowed)
    )
    say(*sources.meant, *run(sources, out, png, pdf))
    if wandb:
        say_text(send(sources, wandb, project))


def recommend(
    sweep: ResultsName = None,
    output_dir: OutputDir = DEFAULT,
    all_cells: AllCells = False,
    model: Only = None,
    task: Only = None,
    only: Columns = None,
    max_bytes: Annotated[
        str | None, typer.Option(help="Size of the whole model, such as 2GB, or 50% of the original's bytes.")
    ] = None,
    max_drop: Annotated[str | None, typer.Option(help="Share of the baseline, such as 2%.")] = None,
    ratio: Annotated[str | None, typer.Option(help="Times smaller than at 16 bits a number, such as 3.")] = None,
    latency: Annotated[
        str | None, typer.Option(help="Share of the baseline's time in the same run, such as 0.8, among timed cells.")
    ] = None,
    form: Annotated[
        str | None, typer.Option("--for", help="Only what this can hold: openvino, onnx, compressed-tensors, vllm, ….")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The recipe file.")] = None,
    verify: Annotated[bool, typer.Option(help="Run the recipe and say what it scored.")] = False,
) -> None:
    """The best recipe under a budget: chosen on one half of the images, reported on the other."""
    from blip2sweep.commands.budget import Budget
    from blip2sweep.commands.recommend import run_recommend, source_for
    from blip2sweep.reporting.source import narrowing

    source = source_for(output_dir, sweep, all_cells, narrowing(model, task, only or []), form)
    lines = run_recommend(source, Budget(max_bytes, max_drop, ratio, latency), out, verify, form)
    say(*source.meant, *lines)


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
