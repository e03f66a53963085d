"""`blip2sweep export`: a cell's model in a format that others load or serve, whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from blip2sweep.commands import made_with
from blip2sweep.commands.chosen_cell import chosen_cell
from blip2sweep.commands.sizes import original_line
from blip2sweep.console.quiet import quiet
from blip2sweep.console.quoting import yaml_text
from blip2sweep.errors import UserError, UserErrors
from blip2sweep.exporting import OWN, Format, format_of
from blip2sweep.exporting.held import lacks
from blip2sweep.exporting.manifest import check_export, write_manifest
from blip2sweep.exporting.whole import taken, whole
from blip2sweep.files import write_atomic
from blip2sweep.models.anatomy import anatomy
from blip2sweep.planning.model import planned_model
from blip2sweep.recipe import Recipe
from blip2sweep.recipe.compact import expand, targets, text
from blip2sweep.recipe.semantics import semantics_of
from blip2sweep.recipe.size import size
from blip2sweep.wire.model_section import ModelSection
from blip2sweep.wire.pack import CellJob, JsonObject, Settings
from blip2sweep.workers.run_cell import unusable

if TYPE_CHECKING:
    from blip2sweep.exporting.made import Made

Maker = Callable[[CellJob], "Made"]
ON_CPU = ("openvino", "onnx", "tensorrt-llm")  # formats of graphs, which are traced in the CPU's memory
WITHIN = 0.01  # of the row's model_bytes, what the payload may differ


def run_export(
    words: Sequence[str], to: tuple[str, Path] | None, purpose: str | None, check: Path | None, config_dir: Path | None,
    output_dir: Path,
) -> list[str]:  # fmt: skip
    """What the verb does. Returns what there is to say. Raises UserError for words that are no cell."""
    if check is not None:
        return [checked(check)]
    if not words or to is None:
        lacking = "no cell" if not words else "no --to"
        raise UserError(f"export: {lacking}; right: such as blip2sweep export KEY --to compressed-tensors DIR")
    format_of(to[0])
    chosen = chosen_cell("export", words, config_dir, output_dir)
    settings = chosen.settings | Settings(device="cpu") if to[0] in ON_CPU else chosen.settings
    told = export(chosen.job, *to, purpose, lambda job: _in_torch(job, settings), chosen.row)
    return [*told, *chosen.notes]


def export(
    job: CellJob, form: str, to: Path, purpose: str | None, maker: Maker, row: bool = True
) -> list[str]:  # fmt: skip
    """Write a cell's model. Returns what there is to say.

    form: a name of `exporting.FORMATS`. maker: what makes the model. row: whether the cell is in the table. Raises UserError with all that the format cannot
    hold, before anything is computed.
    """
    written_by, recipe = format_of(form), recipe_of(job)
    _check(job, recipe, written_by, form, purpose, to)
    with quiet(), whole(to) as folder:
        made = maker(job)
        written = written_by.write(made, folder, purpose)
        if not (folder / "README.md").exists():
            _write_readme(folder, made, form, written.notes)
        write_atomic(folder / "recipe.yaml", yaml_text(_recipe(job)).encode())
        expected = expected_bytes(job, recipe, written_by)
        write_manifest(folder, form, purpose, job, written, expected)
        around = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) - written.payload
    told = f"wrote {to}: {text(targets(recipe))}, as {form}" + (f" for {purpose}" if purpose else "")
    sizes = f"{written.payload:,} bytes of numbers, {around:,} of headers and texts"
    compared = _compared(written.payload, expected, job["columns"].get("model_bytes"), row)
    return [told, f"{sizes}; {compared}", original_line(job), *written.notes]


def _write_readme(folder: Path, made: Made, form: str, notes: Sequence[str]) -> None:
    from blip2sweep.exporting.readme import of_others

    write_atomic(folder / "README.md", of_others(made, form, notes).encode())


def _in_torch(job: CellJob, settings: Settings) -> Made:
    """A job's model, made by the torch back end."""
    from blip2sweep.backends.torch.backend import TorchBackend

    return TorchBackend(settings).made(job)


def expected_bytes(job: CellJob, recipe: Recipe, written_by: Format) -> float | None:
    """The row's model_bytes, without what no graph reads where a cell of torch is written as graphs."""
    told = job["columns"].get("model_bytes")
    if told is None or job.get("backend") or not getattr(written_by, "GRAPHS", False):
        return told
    model = planned_model(ModelSection(**{**job["model"], "path": job["folder"]}))
    return told - (size(recipe, model.numbers).model_bytes - size(recipe, model.graph_numbers).model_bytes)


def _compared(payload: int, expected: float | None, told: float | None, row: bool) -> str:
    """How many bytes there are against those of the row, or of planning where the cell has no row."""
    if not expected or not told:
        return "the row has no model_bytes" if row else "planning knows no model_bytes"
    off, left, where = payload / expected - 1, told - expected, "in the table" if row else "by planning"
    unread = f" less {left:,.0f} of blocks and modules that no graph reads" if left else ""
    text = f"{told:,.0f} {where}{unread}, {off:+.2%}"
    if abs(off) <= WITHIN:
        return text
    return f"{text}: NOT what {'the row says; it is of an earlier version, or' if row else 'planning says:'} a defect"


def recipe_of(job: CellJob) -> Recipe:
    """The recipe of a job. Raises UserError where this version means another one by its words."""
    recipe = expand(job["recipe"], anatomy(job["model"]))
    columns: Mapping[str, object] = {**job["columns"]}
    entries = cast("list[dict[str, str]]", targets(recipe))
    now = semantics_of(entries, str(columns.get("stored") or columns.get("dtype", "")))
    if (not recipe.empty and recipe.hash != job["recipe_hash"]) or now != columns["semantics"]:
        raise UserError(
            f"cell {job['key']} was planned by another version, which made other weights; right: the command of its sweep "
            f"again, and the key it then has"
        )
    return recipe


def _check(job: CellJob, recipe: Recipe, written_by: Format, form: str, purpose: str | None, to: Path) -> None:
    """Raise UserError with all reasons why a cell cannot be exported."""
    wrong = [*_why_not(job, form, purpose, written_by), *written_by.mistakes(recipe, job["model"], purpose)]
    if why := unusable(job):
        wrong.append(str(why))
    told = [f"--to {form}: {why.removeprefix('--to ')}" for why in wrong]
    if why_not := taken(to, f"--to {form}"):
        told.append(why_not)
    if told:
        raise UserErrors(told)
    if (gone := recipe.dropped_paths) and getattr(written_by, "CHECKPOINT", True):
        from blip2sweep.models import shorter

        shorter.check(Path(job["folder"]), job["model"], gone)


def _why_not(job: CellJob, form: str, purpose: str | None, written_by: Format) -> list[str]:
    extra, backend = written_by.EXTRA, job.get("backend", {}).get("name")
    purposes: Sequence[str] = getattr(written_by, "PURPOSES", ())
    wrong = []
    if extra and lacks(extra):
        wrong.append(f"needs {extra}, which is not installed; right: pip install 'blip2sweep[{extra}]'")
    if purpose is not None and purpose not in purposes:
        wrong.append(f"--for {purpose}: not known here; right: {', '.join(purposes) or 'without --for'}")
    if backend is not None and OWN.get(str(backend)) != form:
        right = f"--to {OWN[str(backend)]}" if backend in OWN else "a cell of backend=torch"
        wrong.append(f"backend={backend} of this cell runs another format; right: {right}")
    if held := job["columns"].get("checkpoint"):
        wrong.append(
            f"its layers are integers of others ({held}), which would be written as numbers; right: the folder itself"
        )
    return wrong


def _recipe(job: CellJob) -> JsonObject:
    """What `recipe_file=` reads, and where the weights came from."""
    columns: Mapping[str, object] = {**job["columns"]}
    source = {
        **{name: columns.get(name) for name in ("model", "weights", "revision")},
        "overrides": made_with.of_job(job),
    }
    measured = {k: v for k, v in columns.items() if re.match("calibration", k)} if job["calibration"] else None
    return {"targets": job["recipe"], "source": source, "calibration": measured, "key": job["key"]}


def checked(folder: Path) -> str:
    """Whether an exported folder is as it was written. Raises UserError with all that is not."""
    found = check_export(folder)
    return f"{folder}: {found['format']} of cell {found['key']}, {len(found['files'])} files as they were written"
