"""The verb `recommend`: from an output folder to a recipe file, what to expect of it, and its run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from blip2sweep.analysis.dropoff import too_few
from blip2sweep.analysis.held_by import HeldBy, left_out
from blip2sweep.analysis.prices import prices
from blip2sweep.analysis.recipes import Entry, is_further, text_of
from blip2sweep.analysis.recommend import Choice, recipe_file, recommend
from blip2sweep.analysis.spread import LEVEL
from blip2sweep.commands.budget import Budget
from blip2sweep.commands.verify import check_can_run, verified
from blip2sweep.console.quoting import override
from blip2sweep.errors import UserError
from blip2sweep.files import write_atomic
from blip2sweep.metrics import fewest_images
from blip2sweep.metrics.intervals import Drop
from blip2sweep.recipe.setting import entry_text
from blip2sweep.recipe.size import RATIO_BITS
from blip2sweep.reporting.export_line import export_line, held_by
from blip2sweep.reporting.few_images import FEW_CHANGED, unseen_share
from blip2sweep.reporting.figure import label
from blip2sweep.reporting.prices import price_lines
from blip2sweep.reporting.rerun import context
from blip2sweep.reporting.source import Source


def run_recommend(
    source: Source, asked: Budget, path: Path | None, verify: bool, form: str | None = None
) -> list[str]:  # fmt: skip
    """Choose a recipe and write its file. Returns lines on what to expect of it, and how to export it.

    verify: run the recipe too. form: the format that has to hold it, or who serves that.
    """
    if not any(asked):
        raise UserError("recommend: no budget given; right: --max-bytes 2GB, --ratio 3, --max-drop 2%, or several")
    base = source.cells[source.cells["part"] == "none"].iloc[0]
    budget, drop = asked.bytes(base["model_bytes"] * 8 / base["bits_per_weight"]), asked.drop()
    if verify:
        check_can_run(source)
    if path is not None and path.is_dir():
        raise UserError(f"--out {path}: is a folder; right: the recipe's file, such as {path / 'recommended.yaml'}")
    held = held_by(source, form) if form else None
    choice, gone = _chosen(source, budget, drop, held)
    path = path or source.folder / "recommended.yaml"
    comments = {"budget": str(asked), "from": _origin(source), "expected": _expected(choice, source)}
    write_atomic(path, recipe_file(choice, comments).encode())
    lines = [
        *gone,
        *_summary(choice, source),
        *_of_others(choice, source),
        *_over_limit(choice, drop),
        *_reaches(choice, drop, source),
        *_unseen(choice, drop, source),
        *_prices(choice, source),
        f"wrote {path}",
        *_predicted_file(choice.instead, path, comments),
    ]
    if not choice.entries:
        return [*lines, "nothing to run: it is the baseline"]
    try:
        command = [*_context(source, choice), override("recipe_file", str(path))]
    except UserError as error:
        if verify:
            raise
        return [*lines, f"run it with recipe_file={path}; {error}"]
    lines.append(f"run it: python -m blip2sweep {shlex.join(command)}")
    key = choice.key
    if verify:
        told, key = verified(source, command, choice)
        lines += told
    return [*lines, *filter(None, [export_line(source, held, choice.entries, key)])]


def _chosen(
    source: Source, budget: int | None, drop: float | None, held: HeldBy | None
) -> tuple[Choice, list[str]]:  # fmt: skip
    """The choice, and the line on the cells that the format cannot hold."""
    measured, draws = source.measured
    gone = left_out(held.name, measured, held.refused(measured)) if held else None
    try:
        found = recommend(source.cells, source.metric, draws, source.known_anatomy, budget, drop, measured, held)
    except UserError as error:
        if held is None or gone is None:
            raise
        right = "right: a larger budget, or a sweep of what it can hold"
        raise UserError(f"nothing that {held.name} can hold is within the budget: {gone}; {right}") from error
    return found, [gone] if gone else []


def _predicted_file(instead: Choice | None, path: Path, comments: Mapping[str, str]) -> list[str]:
    """Write the file of a recipe whose prediction is better than every cell, so that it can be run."""
    if instead is None or instead.key is not None:
        return []
    other = path.with_stem(f"{path.stem}-predicted")
    write_atomic(other, recipe_file(instead, {k: v for k, v in comments.items() if k != "expected"}).encode())
    return [f"wrote {other} (the prediction)"]


def _origin(source: Source) -> str:
    """The cells that predictions were fitted on, and the other cells that competed."""
    more = len(source.measured[0]) - len(source.cells)
    others = f", and {more} cells of other sweeps with the same baseline" if more else ""
    return f"{source.title}, {len(source.cells)} cells{others}"


def _context(source: Source, choice: Choice) -> list[str]:
    """The overrides of the cell's own run, or of a cell of the fitted setting."""
    cells = source.measured[0] if choice.key else source.cells
    own = cells[cells["key"] == choice.key] if choice.key else cells[cells["setting"] == choice.setting]
    return context(source, [choice.entries], own.iloc[0].to_dict())


# ---- what to expect


def _expected(choice: Choice, source: Source) -> str:
    half = "the half of the images that did not choose it" if choice.held_out else "all images, which also chose it"
    how = f"measured, cell {choice.key}" if choice.key else "predicted, not measured"
    return f"{how}: {_level(choice, source)} (baseline {choice.baseline:.4f}), on {half}"


def _level(choice: Choice, source: Source) -> str:
    """The metric with an interval: of a prediction its own, of a cell that of its drop."""
    value = f"{label(source)} {choice.value:.4f}"
    if choice.key:
        return f"{value}, drop {choice.drop:.4f} {_drop_ends(choice.key, choice, source)}"
    return f"{value}, {LEVEL:.0%} prediction interval [{choice.low:.4f}, {choice.high:.4f}]"


def _drop_ends(key: str, choice: Choice, source: Source) -> str:
    """The paired 95 % interval on the images that are reported."""
    found = _paired(key, choice, source)
    return f"[{found.low:.4f}, {found.high:.4f}]" if found else "without an interval (no outputs)"


def _paired(key: str, choice: Choice, source: Source) -> Drop | None:
    """The drop of a cell on the images that are reported; None where it has no outputs."""
    draws = source.measured[1]
    if draws is None or key not in draws:
        return None
    return (draws.only([key]).on(draws.half(False)) if choice.held_out else draws).paired(key)


def _summary(choice: Choice, source: Source) -> Iterator[str]:
    """The recipe, its size, what to expect, and what else to look at."""
    yield from [f"{e['target']}: {_what(e)}" for e in choice.entries] or ["nothing is compressed"]
    ratio = f"ratio {RATIO_BITS / choice.bits_per_weight:.2f} to 16 bits a number"
    yield f"{choice.model_bytes:,} bytes, {choice.bits_per_weight:.2f} bits per weight, {ratio}"
    yield _expected(choice, source)
    yield from _against_control(choice, source)
    if choice.unpredicted:
        yield f"only measured cells competed: {choice.unpredicted}"
    if choice.instead and choice.instead.entries:
        yield _other(choice.instead, source, choice.model_bytes)


def _what(entry: Entry) -> str:
    return entry_text(entry) if is_further(entry) else f"{entry['method']} {entry['bits']} bits"


def _against_control(choice: Choice, source: Source) -> Iterator[str]:
    """What a recovered cell loses against its control, on all images."""
    cells, m = source.measured[0], source.metric
    own = cells[cells["key"] == choice.key]
    if own.empty or f"drop_control_{m}" not in own or own["control"].iloc[0] == choice.key:
        return
    drop, low, high = (float(own[f"drop_control_{m}{end}"].iloc[0]) for end in ("", "_low", "_high"))
    if drop == drop:
        yield (
            f"it is trained after compression; against the uncompressed model with the same recovery (cell {own['control'].iloc[0]}) "
            f"the drop on all images is {drop:.4f} [{low:.4f}, {high:.4f}], and the limit is not about that one"
        )


def _other(choice: Choice, source: Source, than: int) -> str:
    """What else to look at: the best cell, or what a cell does not show yet."""
    text = f"{text_of(choice.entries)}, {choice.model_bytes:,} bytes, {_level(choice, source)}"
    return (
        f"the best measured is cell {choice.key}: {text}" if choice.key else f"better, if its prediction holds: {text}"
    )


def _over_limit(choice: Choice, max_drop: float | None) -> list[str]:
    """A warning where the recipe exceeds the limit, or may exceed it."""
    if max_drop is None:
        return []
    if not choice.within:
        least = f"{choice.chosen_drop:.1%} is the least loss that was found"
        worse = f", and it may be {choice.judged:.1%}" if choice.judged > choice.chosen_drop else ""
        return [f"the limit of {max_drop:.1%} is NOT kept: {least}{worse}; "
                "right: a larger limit or size, or more cells (blip2sweep suggest)"]  # fmt: skip
    held_out, word = choice.drop / choice.baseline, "measured" if choice.key else "predicted"
    warning = f"on the other half {held_out:.1%} is {word}, above the limit of {max_drop:.1%}"
    return [warning] if held_out > max_drop else []


def _of_others(choice: Choice, source: Source) -> list[str]:
    """That the cell was run by another sweep."""
    if choice.key is None or choice.key in set(source.cells["key"]):
        return []
    return [f"cell {choice.key} is none of {source.title}: another sweep with the same baseline ran it"]


def _reaches(choice: Choice, max_drop: float | None, source: Source) -> list[str]:
    """That the interval of a cell which keeps the limit reaches beyond it."""
    found = _paired(choice.key, choice, source) if choice.key and choice.entries and choice.within else None
    if max_drop is None or found is None or not found.high / choice.baseline > max_drop:
        return []
    return [f"its interval reaches {found.high / choice.baseline:.1%}, beyond the limit of {max_drop:.1%}"]


def _unseen(choice: Choice, max_drop: float | None, source: Source) -> list[str]:
    """Notes on what so few images cannot show."""
    draws = source.measured[1]
    if draws is None or not choice.entries:
        return []
    shown = draws.on(draws.half(False)) if choice.held_out else draws
    n, lines = shown.images.count, []
    if choice.key is not None and choice.key in shown and (few := shown.changed(choice.key)) < FEW_CHANGED:
        lines.append(f"only {few} of these {n} images changed: {unseen_share(n)}")
    if max_drop and n < fewest_images(max_drop):
        lines.append(f"a limit of {max_drop:.1%} is not known to be kept: {too_few(n, max_drop)}")
    return lines


def _prices(choice: Choice, source: Source) -> list[str]:
    """What one width more or less changes, in the choice's setting, at its cell or at the smallest that loses at most 2
    %.
    """
    cells, draws = source.measured
    found = prices(cells, source.metric, lambda keys: draws, choice.key)
    own = found[found["setting"] == choice.setting]
    return price_lines(source, own if len(own) else found, cells)
