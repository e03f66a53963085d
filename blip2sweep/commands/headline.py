"""The first line of `recommend`: what is recommended, what it keeps, and every limit that nothing keeps."""

from __future__ import annotations

from blip2sweep.analysis.cell_row import number
from blip2sweep.analysis.choice import Choice
from blip2sweep.analysis.keeps import kept_of_row
from blip2sweep.analysis.recipes import text_of
from blip2sweep.analysis.stopped import STOPPED, stopped_at
from blip2sweep.commands.budget import Budget
from blip2sweep.commands.expectation import exceeded
from blip2sweep.metrics.stopping import BELOW
from blip2sweep.recipe.size import RATIO_BITS
from blip2sweep.reporting.figure import label
from blip2sweep.reporting.smaller import ratio_text
from blip2sweep.reporting.source import Source

WELL = 0.9  # the share of the baseline down to which a smaller model is looked for, where no limit says another


def size_limit(source: Source, asked: Budget) -> int | None:
    """What the whole model may take, in bytes; None where nothing is said of it."""
    base = source.cells[source.cells["part"] == "none"].iloc[0].to_dict()
    stored = number(base, "model_bytes")
    return asked.bytes(stored * 8 / number(base, "bits_per_weight"), stored)


def headline(choice: Choice, asked: Budget, source: Source) -> str:
    """The line that names what is recommended, and what it keeps. Where nothing keeps a limit, or nothing keeps half of
    the metric, the line begins with that, and ends with the size down to which more is kept."""
    limit, others = asked.drop(), asked._replace(max_drop=None)
    within = f" within {others}" if any(others) else ""
    if not choice.entries:
        return _of_original(choice, asked, source, within)
    what = f"{_name(choice)}, {'measured' if choice.key else 'predicted'}"
    over = exceeded(choice, limit)
    if over and limit is not None:
        nothing = "" if choice.within else f"nothing{within} is known to keep {100 * (1 - limit):g} %; the best is "
        tail = [f"within {others}"] if any(others) and choice.within else []
        told = f"BEYOND --max-drop {asked.max_drop}: {nothing}{what}: {'; '.join([*over, *tail])}"
        down_to = "" if choice.within else _down_to(source, 1 - limit, asked)
        return told + _measured_beside(choice, source, limit) + down_to
    down_to = _down_to(source, WELL, asked) if limit is None and choice.other_drop > 1 - WELL else ""
    if limit is None and choice.other_drop > 1 - BELOW:
        told = f"NOT recommended: nothing{within} is known to keep half of {label(source)}; the best is {what}: {_keeps(choice, source)}"
        return told + _measured_beside(choice, source, limit) + down_to
    return f"recommended: {what}: within {asked}, {_keeps(choice, source)}{_measured_beside(choice, source, limit)}{down_to}"


def _of_original(choice: Choice, asked: Budget, source: Source, within: str) -> str:
    """That the model is best left alone, and what the best of the cells would keep."""
    what = f"the original itself, cell {choice.key}, measured: within {asked}"
    best = choice.runner_up
    if best is None or best.within:
        return f"recommended: {what}"
    share = 1 - (asked.drop() or 0)
    ratio = f"ratio {ratio_text(RATIO_BITS / best.bits_per_weight)}"
    where = " on the images that choose" if best.held_out else ""
    told = f"{_name(best)} ({text_of(best.entries)}, {ratio}), keeps {1 - best.judged:.2%} of {label(source)}{where}"
    return f"no compressed cell{within} keeps {100 * share:g} %: the best, {told}; recommended: {what}"


def _name(choice: Choice) -> str:
    return f"cell {choice.key}" if choice.key else "a recipe that was not run"


def _keeps(choice: Choice, source: Source) -> str:
    """`keeps 97.9 % of CIDEr`, on the images that did not choose it; a prediction with its interval."""
    value, low, high = (100 * v / choice.baseline for v in (choice.value, choice.low, choice.high))
    if choice.key:
        cells = source.measured[0]
        early = stopped_at(cells[cells["key"] == choice.key].iloc[0].to_dict())
        return f"keeps {value:.1f} % of {label(source)}{f', {early}' if early else ''}"
    return f"may keep {value:.1f} % [{low:.1f}, {high:.1f}] of {label(source)}"


def _measured_beside(choice: Choice, source: Source, limit: float | None) -> str:
    """The best cell, behind a recipe that was not run; with a word where it exceeds the limit."""
    best = choice.instead
    if choice.key or best is None or not best.entries:
        return ""
    over = ", BEYOND the limit" if exceeded(best, limit) else ""
    return f"; the best measured, {_name(best)}{over}, {_keeps(best, source)} with {best.model_bytes:,} bytes"


def _down_to(source: Source, share: float, asked: Budget) -> str:
    """The smallest cell beyond the limit of size that keeps a share. Nothing where size is no limit, and where a smaller
    cell keeps it on all images, though not on those that choose."""
    if (limit := size_limit(source, asked)) is None:
        return ""
    cells, metric = source.measured[0], source.metric
    own = [
        f"{name}_{metric}{end}" for name, end in (("baseline", ""), ("drop", ""), ("drop", "_low"), ("drop", "_high"))
    ]
    told = ["key", "part", "model_bytes", "bits_per_weight", STOPPED, "images", "images_of"]
    cells = cells.reindex(columns=[*told, *own])
    kept = [
        row
        for row in cells[cells["part"] != "none"].to_dict("records")
        if kept_of_row(row, metric).kept >= share and number(row, "model_bytes") > 0
    ]
    small = min(kept, key=lambda row: number(row, "model_bytes"), default=None)
    if small is None:
        return f"; no compressed cell of any size keeps {100 * share:g} %"
    if number(small, "model_bytes") <= limit:
        return ""
    ratio = ratio_text(RATIO_BITS / number(small, "bits_per_weight"))
    early = stopped_at(small)
    cell = f"cell {small['key']}{f', {early}' if early else ''}"
    return f"; {100 * share:g} % is kept down to ratio {ratio}, {number(small, 'model_bytes'):,.0f} bytes ({cell})"
