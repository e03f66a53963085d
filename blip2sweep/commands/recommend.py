"""The verb `recommend`: from an output folder to a recipe file, what to expect of it, and its run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from blip2sweep.analysis.cell_row import Row, number
from blip2sweep.analysis.choice import Choice
from blip2sweep.analysis.held_by import HeldBy, back_end_of, format_named, holds_nothing, left_out
from blip2sweep.analysis.knapsack import TOO_FEW
from blip2sweep.analysis.recipes import calibrates
from blip2sweep.analysis.recommend import recommend
from blip2sweep.analysis.stopped import FINISH, stopped_at, verdicts_line
from blip2sweep.commands import made_with
from blip2sweep.commands.budget import Budget, is_unit
from blip2sweep.commands.expectation import (
    expected,
    keeps_lines,
    of_others,
    original,
    over_limit,
    prices,
    reaches,
    summary,
    unseen,
)
from blip2sweep.commands.headline import headline, size_limit
from blip2sweep.commands.made_with import recipe_file
from blip2sweep.commands.times import time_lines
from blip2sweep.commands.verify import check_can_run, verified
from blip2sweep.console.quoting import override
from blip2sweep.console.remarks import many
from blip2sweep.errors import UserError, UserErrors
from blip2sweep.files import write_atomic
from blip2sweep.reporting.back_ends import back_end_names
from blip2sweep.reporting.cells_to_fit import cells_to_fit
from blip2sweep.reporting.export_line import TORCH, export_line, held_by
from blip2sweep.reporting.rerun import context
from blip2sweep.reporting.source import Source, select
from blip2sweep.results.sweeps import list_sweeps


def source_for(
    output_dir: Path, sweep: str | None, all_cells: bool, only: dict[str, str | None], form: str | None
) -> Source:
    """The cells to choose among. Of several back ends those of the one that runs the format, else torch's.

    form: of `--for`. Raises UserError as `load_source` does.
    """
    if sweep is not None and is_unit(sweep) and sweep not in {s.name for s in list_sweeps(output_dir)}:
        raise UserError(f"{sweep}: a unit, and no sweep; right: behind its number without a space, such as 2GB or 2%")
    found = select(output_dir, sweep, all_cells, only)
    names = back_end_names(found.table)
    if form is None or only.get("backend") is not None or len(set(names)) < 2:
        return found.source()
    wanted = back_end_of(format_named(form)[0])
    own = [n for n in dict.fromkeys(names) if n.partition(" ")[0] in (wanted, TORCH)]
    own.sort(key=lambda n: n.partition(" ")[0] != wanted)
    return found.of_back_end(own[0]) if own else found.source()


def run_recommend(
    source: Source, asked: Budget, path: Path | None, verify: bool, form: str | None = None
) -> list[str]:  # fmt: skip
    """Choose a recipe and write its file. Returns lines on what to expect of it, and how to export it.

    verify: run the recipe too. form: the format that has to hold it, or who serves that.
    """
    base = source.cells[source.cells["part"] == "none"].iloc[0].to_dict()
    _check(source, asked, path, verify, form)
    budget, drop, time = size_limit(source, asked), asked.drop(), asked.time()
    held = held_by(source, form) if form else None
    choice, gone = _chosen(source, budget, drop, time, held)
    path = path or source.folder / "recommended.yaml"
    comments = {"budget": str(asked), "from": _origin(source), "expected": expected(choice, source)}
    write_atomic(path, recipe_file(choice, comments, _made_of(source, choice, base)).encode())
    lines = [
        headline(choice, asked, source),
        original(source),
        *keeps_lines(choice, drop, source),
        *time_lines(choice, time, source),
        *gone,
        *summary(choice, drop, source),
        *_unpredicted(choice, source),
        *of_others(choice, source),
        *over_limit(choice, drop),
        *reaches(choice, drop, source),
        *unseen(choice, drop, source),
        *filter(None, [verdicts_line(source.cells, "predictions")]),
        *prices(choice, source, drop),
        f"wrote {path}",
        *_predicted_file(choice.instead, path, comments, source, base),
        *_unfinished(choice, path, source, base),
    ]
    if not choice.entries:
        return [*lines, "nothing to run: it is the baseline"]
    try:
        command = _run(source, choice, path)
    except UserError as error:
        if verify:
            raise
        return [*lines, f"run it with recipe_file={path}; {error}"]
    lines.append(f"run it: python -m blip2sweep {shlex.join(command)}")
    key = choice.key
    if verify:
        told, key = verified(source, command, choice)
        lines += told
    return [*lines, *filter(None, [export_line(source, held, choice.entries, key, _apart(command, path))])]


def _check(source: Source, asked: Budget, path: Path | None, verify: bool, form: str | None) -> None:
    """Raise UserError with all that is wrong with the options, before anything is chosen."""
    wrong = asked.mistakes()
    base = source.cells[source.cells["part"] == "none"].iloc[0].to_dict()
    if (asked.ratio or "%" in (asked.max_bytes or "")) and not number(base, "model_bytes") > 0:
        wrong.append("--ratio, --max-bytes: the size of the original is not known; right: --max-bytes with bytes")
    if path is not None and path.is_dir():
        wrong.append(f"--out {path}: is a folder; right: the recipe's file, such as {path / 'recommended.yaml'}")
    for check in (lambda: check_can_run(source) if verify else None, lambda: held_by(source, form) if form else None):
        try:
            check()
        except UserError as error:
            wrong.append(str(error))
    if wrong:
        raise UserErrors(wrong)


def _chosen(
    source: Source, budget: int | None, drop: float | None, time: float | None, held: HeldBy | None
) -> tuple[Choice, list[str]]:  # fmt: skip
    """The choice, and the line on the cells that the format cannot hold."""
    cells, draws = source.measured
    gone = left_out(held.name, cells, held.refused(cells)) if held else None
    try:
        found = recommend(source.cells, source.metric, draws, source.known_anatomy, budget, drop, cells, held, time)
    except UserError as error:
        if held is not None and (nothing := holds_nothing(held.name, cells, held.refused(cells))):
            raise UserError(nothing) from error
        if held is not None and gone is not None:
            right = "right: a larger budget, or a sweep of what it can hold"
            raise UserError(f"nothing that {held.name} can hold is within the budget: {gone}; {right}") from error
        size = f"; the {original(source)}" if budget is not None and "bytes" in str(error) else ""
        raise UserError(f"{error}{_missing(str(error), source)}{size}") from error
    return found, [gone] if gone else []


def _unpredicted(choice: Choice, source: Source) -> list[str]:
    """Why measured cells alone competed; where too few were run to predict others, with the command that runs more."""
    why = choice.unpredicted
    return [f"only measured cells competed: {why}{_missing(why, source)}"] if why else []


def _missing(why: str, source: Source) -> str:
    found = cells_to_fit(source) if TOO_FEW in why else None
    return f", such as {found}" if found else ""


def _made_of(source: Source, choice: Choice, base: Row) -> dict[str, object]:
    """The model of the cells and its weights, as a recipe file names them, and what they and their size depend on."""
    own = {name: base[name] for name in ("model", "weights") if isinstance(base.get(name), str)}
    try:
        words = _context(source, choice)
    except UserError:  # the sweep varied what its rows do not say
        words = []
    row = {str(k): v for k, v in _like(source, choice).items()}
    calibrated = any(map(calibrates, choice.entries))
    return {**own, "overrides": made_with.of_row(row, calibrated, words)}


def _predicted_file(
    instead: Choice | None, path: Path, comments: Mapping[str, str], source: Source, base: Row
) -> list[str]:  # fmt: skip
    """Write the file of a recipe whose prediction is better than every cell, so that it can be run."""
    if instead is None or instead.key is not None:
        return []
    other = path.with_stem(f"{path.stem}-predicted")
    told = {k: v for k, v in comments.items() if k != "expected"}
    write_atomic(other, recipe_file(instead, told, _made_of(source, instead, base)).encode())
    return [f"wrote {other} (the prediction)"]


def _unfinished(choice: Choice, path: Path, source: Source, base: Row) -> list[str]:
    """That the choice, or the cell that comes next, stopped early, with the command that finishes it."""
    lines = list[str]()
    if choice.key and (told := stopped_at(_like(source, choice))):
        lines.append(f"cell {choice.key} {told}: finish it before you rely on it, by the command below")
    second = choice.runner_up
    if second is None or not (told := stopped_at(_like(source, second))):
        return lines
    other = path.with_stem(f"{path.stem}-runner-up")
    write_atomic(other, recipe_file(second, {"from": _origin(source)}, _made_of(source, second, base)).encode())
    try:
        how = f"finish it too: python -m blip2sweep {shlex.join(_run(source, second, other))}"
    except UserError as error:
        how = f"finish it too, with {FINISH} recipe_file={other}; {error}"
    return [*lines, f"the runner-up, cell {second.key}, {told}: {how}"]


def _run(source: Source, choice: Choice, path: Path) -> list[str]:
    """The words that run a recipe's file as its cell was run; one that stopped early on all images."""
    finished = [FINISH] if choice.key and stopped_at(_like(source, choice)) else []
    return [*_context(source, choice), override("recipe_file", str(path)), *finished]


def _origin(source: Source) -> str:
    """The cells that predictions were fitted on, and the other cells that competed."""
    more = len(source.measured[0]) - len(source.cells)
    others = f", and {many(more, 'cell')} of other sweeps with the same baseline" if more else ""
    return f"{source.title}, {many(len(source.cells), 'cell')}{others}"


TAKEN = ("model", "task", "generation", "calibration", "recover")  # what says which cell it is, and not how it is run


def _apart(command: Sequence[str], path: Path) -> list[str]:
    """The words that mean the recipe's cell to `export` and `quantize`, from those of its run."""
    folder = [v for w, v in pairwise(command) if w in ("--config-dir", "-cd")]
    folder += [w.partition("=")[2] for w in command if w.startswith(("--config-dir=", "-cd="))]
    kept = [w for w in command if "=" in w and w.startswith(TAKEN) and not w.startswith("recipe_file=")]
    return [str(path), *kept, *(("--config-dir", folder[0]) if folder else ())]


def _context(source: Source, choice: Choice) -> list[str]:
    """The overrides of the cell's own run, or of a cell of the fitted setting."""
    return context(source, [choice.entries], _like(source, choice))


def _like(source: Source, choice: Choice) -> Row:
    """The row of the cell, or of a cell of the fitted setting."""
    cells = source.measured[0] if choice.key else source.cells
    own = cells[cells["key"] == choice.key] if choice.key else cells[cells["setting"] == choice.setting]
    return own.iloc[0].to_dict()
