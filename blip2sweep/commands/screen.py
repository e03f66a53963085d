"""`blip2sweep screen`: the frontier of a grid, most of whose cells are not run, or not on all images."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from blip2sweep.analysis.screening import HALF_WIDTHS, MARGIN, Screening, at_first
from blip2sweep.canonical import digest
from blip2sweep.commands.cell_words import cell_overrides
from blip2sweep.commands.plan import ONE_LINE, skipped
from blip2sweep.commands.run import own_command
from blip2sweep.commands.screen_rounds import Rounds, Way
from blip2sweep.console.printing import cell as shown_cell
from blip2sweep.console.printing import console, say, tell
from blip2sweep.console.remarks import many
from blip2sweep.errors import SweepFailed, UserError
from blip2sweep.metrics.stopping import Rule
from blip2sweep.planning.plan import Plan, PlannedJob
from blip2sweep.planning.stopping import COMPARED, NONE, VERDICT, rule_of
from blip2sweep.running.status import duration


def run_screen(jobs: Sequence[PlannedJob], way: Way, dry: bool = False) -> None:
    """Screen the cells of a grid, and print the frontier. dry: say what would be done, and run nothing.

    Raises UserError for a grid that cannot be screened, and SweepFailed where the baseline has no result.
    """
    widths = half_widths(jobs)
    command = own_command().removeprefix("-m ")
    rounds = Rounds.planned(named(jobs, command), way, command, Rule("known", widths[0]))
    if dry:
        say(*described(rounds, widths))
        return
    for line in left_out(rounds.plan):
        say(line, err=True)
    screening = Screening(rounds.grid, rounds.run, widths, told=tell)
    try:
        screening.seen |= rounds.go_on()
        frontier = screening()
    except (KeyboardInterrupt, SystemExit):
        tell(f"what was seen is kept, and the same command goes on: blip2sweep screen {command}")
        raise
    print_outcome(rounds, screening, frontier)
    if screening.failed:
        raise SweepFailed(
            f"{many(len(screening.failed), 'cell')} failed and may be missing from the frontier; right: blip2sweep logs "
            f"{rounds.keys[min(screening.failed)]}, and the same command tries again"
        )


def half_widths(jobs: Sequence[PlannedJob]) -> tuple[float, ...]:
    """The half widths at which cells stop: that which was typed, or the default of looks, and the narrower ones.

    Raises UserError for settings that do not go with screening.
    """
    config = jobs[0].config
    section = dict(config.get("evaluation") or {})
    if section.get("stop") == VERDICT:
        raise UserError(
            f"evaluation.stop={VERDICT}: a verdict predicts no other cell; right: leave it out, as screen stops cells "
            f"that are known"
        )
    typed = next(
        (word for job in jobs for word in job.overrides if word.lstrip("+") == f"evaluation.stop={NONE}"), None
    )
    if typed:
        raise UserError(
            f"{typed}: screen runs cells on some images first; right: leave it out, or a sweep without screen"
        )
    if config.get("rerun"):
        raise UserError(
            f"--rerun {config['rerun'][0]}: screen chooses what it runs; right: the same words without screen"
        )
    if section.get("tolerance") is not None:
        raise UserError(
            f"evaluation.tolerance={section['tolerance']}: screen stops cells that are known, by evaluation.half_width; right: "
            f"leave it out, or evaluation.half_width={section['tolerance']}"
        )
    rule = rule_of({"evaluation": {**section, "stop": "known"}})
    if rule is None or section.get("half_width") is None:
        return HALF_WIDTHS
    return (rule.margin, *(w for w in HALF_WIDTHS if w < rule.margin))


def named(jobs: Sequence[PlannedJob], command: str) -> list[PlannedJob]:
    """The jobs with the sweep's name: without one it is made of the words, so that the same words go on with it."""
    name = jobs[0].config.get("sweep_name") or f"screen-{digest(sorted(cell_overrides(command)))[:6]}"
    return [PlannedJob(job.overrides, {**job.config, "sweep_name": name}) for job in jobs]


# ---- what is said


def left_out(plan: Plan) -> list[str]:
    """The cells that are skipped, those that cannot stop, and results that do not count, a line each."""
    whole = (
        f"on all images, whatever the rule: {n} ({why})" for why, n in plan.stopping.whole.items() if why != COMPARED
    )
    return [*skipped(plan), *whole, *filter(None, [plan.earlier])]


def described(rounds: Rounds, widths: Sequence[float]) -> list[str]:
    """What a screening would do, as far as that is known before."""
    cells, families = len(rounds.keys), rounds.grid.families
    predicted = sum(len(f.rows) for f in families)
    first = sum(min(at_first(len(f.rows)), len(f.rows)) for f in families) + cells - predicted
    seconds = float(rounds.grid.seconds.sum())
    of = [f"{predicted} that predict each other, in {many(len(families), 'setting')}"] if predicted else []
    of += [f"{cells - predicted} that nothing predicts, so all are looked at"] if predicted < cells else []
    can_stop = rounds.plan.stopping.request and rounds.plan.stopping.request["images"]
    look = f"until they are known to ±{100 * widths[0]:g} %" if can_stop else "on all images, as none of them can stop"
    done = f"; {len(rounds.plan.done)} of the cells and the baseline have results" if rounds.plan.done else ""
    return [
        *left_out(rounds.plan),
        f"screening: {many(cells, 'cell')}: {'; '.join(of)}",
        f"first the baseline on all {many(rounds.images, 'image')}, and {many(first, 'cell')} {look}; then those that may be on "
        "the frontier, by what they teach for each second",
        f"all {many(cells, 'cell')} on all images would take about {duration(seconds)} of one worker; how many are left "
        "out is decided by results. Each round is a launch of its own, which loads the model",
        f"sweep: {rounds.name}{done}",
    ]


def print_outcome(rounds: Rounds, screening: Screening, frontier: Sequence[int]) -> None:
    """Print what was run, the frontier, and what may come next."""
    whole = sum(s.whole for s in screening.seen.values())
    seen = sum(s.images for s in screening.seen.values()) + rounds.images
    share = seen / (rounds.images * (len(rounds.keys) + 1))
    say(
        f"{len(screening.seen)} of {many(len(rounds.keys), 'cell')} looked at, {whole} of them on all {rounds.images} images; "
        f"with the baseline {100 * share:.1f} % of the images of a full sweep, whichever command ran them"
    )
    if frontier:
        screen = console(soft_wrap=True)
        if not screen.is_terminal and "COLUMNS" not in os.environ:
            screen.width = ONE_LINE
        screen.print(_table(rounds, frontier))
        say(
            f"no other cell is expected to keep {100 * MARGIN:g} % of the baseline more than one of these that is no larger"
        )
    elif screening.failed:
        say("no cell that has a result on all images is smaller than the baseline")
    else:
        say("no cell is smaller than the baseline")
    where = (
        rounds.name
        if rounds.output_dir == Path("outputs")
        else f"{rounds.name} --output-dir {shlex.quote(str(rounds.output_dir))}"
    )
    say(
        f"next: blip2sweep recommend {where} --max-drop 2%",
        f"      blip2sweep report {where}",
        f"all of it: python -m blip2sweep -m {rounds.command}",
    )


def _table(rounds: Rounds, frontier: Sequence[int]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("key", "bytes", "bits per weight", rounds.metric, "keeps", "95 %", "recipe"):
        table.add_column(name, no_wrap=name != "recipe", overflow="fold", min_width=24 if name == "recipe" else None,
                         justify="left" if name in ("key", "recipe") else "right")  # fmt: skip
    for i in frontier:
        columns, kept = rounds.columns[i], rounds.draws.kept(rounds.keys[i])
        table.add_row(*map(shown_cell, (
            rounds.keys[i], f"{columns['model_bytes']:,}", f"{columns['bits_per_weight']:.2f}",
            f"{rounds.draws.value(rounds.keys[i]):.4g}", f"{100 * kept.kept:.1f} %",
            f"{100 * kept.low:.1f} to {100 * kept.high:.1f} %", columns["recipe"])))  # fmt: skip
    return table
