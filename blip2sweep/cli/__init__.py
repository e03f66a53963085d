"""The verbs, in the order in which `--help` lists them."""

from __future__ import annotations

import typer

from blip2sweep.cli import exports, living, lmms, models, results, running

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="blip2sweep: what can be compressed in a vision-language model, how far, and at what cost.",
)

app.command()(running.plan)
app.command()(results.table)
app.command()(running.status)
app.command()(running.wait)
app.command()(running.retry)
app.command()(running.ask)
app.command()(running.cancel)
app.command()(running.logs)
app.command()(results.answers)
app.command()(results.score)
app.command()(results.rescore)
app.command()(living.sweeps)
app.command()(living.forget)
app.command()(living.merge)
app.command()(living.collect)
app.command()(running.cache)
app.command()(running.doctor)
app.command("import")(results.import_results)
app.command()(results.report)
app.command()(results.recommend)
app.command()(results.suggest)
app.command()(running.screen)
app.command()(exports.quantize)
app.command()(exports.export)
app.command()(models.influence)
app.add_typer(models.model, name="model")
app.add_typer(lmms.lmms, name="lmms")
