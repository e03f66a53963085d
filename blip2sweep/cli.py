"""The verbs, in the order in which `--help` lists them."""

from __future__ import annotations

import typer

from blip2sweep import cli_results, cli_running

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="blip2sweep: what can be compressed in a vision-language model, how far, and at what cost.",
)

app.command()(cli_running.plan)
app.command()(cli_results.table)
app.command()(cli_running.status)
app.command()(cli_running.wait)
app.command()(cli_running.retry)
app.command()(cli_running.cancel)
app.command()(cli_running.logs)
app.command()(cli_results.score)
app.command()(cli_results.rescore)
app.command()(cli_running.cache)
app.command()(cli_running.doctor)
app.command("import")(cli_results.import_results)
app.command()(cli_results.report)
app.command()(cli_results.recommend)
app.command()(cli_results.suggest)
app.command()(cli_results.quantize)
