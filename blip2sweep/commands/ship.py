"""From a recommendation to what is handed out: what its format holds, and the command that writes it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from blip2sweep.analysis.held_by import HeldBy, format_named, left_out
from blip2sweep.analysis.recipes import Entry
from blip2sweep.analysis.recommend import Choice, recommend
from blip2sweep.commands.export import OWN
from blip2sweep.errors import UserError
from blip2sweep.recipe.compact import expand
from blip2sweep.reporting.source import Source

USUAL = ("compressed-tensors", "openvino", "onnx", "torchao", "bitsandbytes")  # named in turn where none was asked for
TORCH = "torch"


def held_by(source: Source, name: str) -> HeldBy:
    """What the format of `--for` holds of the model. Raises UserError where there is none, or no cell is one of its
    back end."""
    form, purpose = format_named(name)
    backend = str(source.cells["backend"].iloc[0]) if "backend" in source.cells else TORCH
    if backend in OWN and OWN[backend] != form:
        raise UserError(f"--for {name}: cells of backend={backend} run another format; right: --for {OWN[backend]}")
    return _held(source, form, purpose)


def _held(source: Source, form: str, purpose: str | None = None) -> HeldBy:
    anatomy = source.known_anatomy
    assert source.section is not None
    return HeldBy(form, purpose, source.section, anatomy)


def chosen(
    source: Source, budget: int | None, drop: float | None, held: HeldBy | None
) -> tuple[Choice, list[str]]:  # fmt: skip
    """The choice, and the line on the cells that the format cannot hold."""
    measured, draws = source.measured
    gone = left_out(_name(held), measured, held.refused(measured)) if held else None
    try:
        found = recommend(source.cells, source.metric, draws, source.known_anatomy, budget, drop, measured, held)
    except UserError as error:
        if held is None or gone is None:
            raise
        right = "right: a larger budget, or a sweep of what it can hold"
        raise UserError(f"nothing that {_name(held)} can hold is within the budget: {gone}; {right}") from error
    return found, [gone] if gone else []


def _name(held: HeldBy) -> str:
    return held.purpose or held.form


def export_line(source: Source, held: HeldBy | None, entries: Sequence[Entry], key: str | None) -> str | None:
    """The line with the command that writes a recipe's model; None where no usual format holds it.

    held: of the format that was asked for. key: of its cell; None where it has to be measured first.
    """
    held = held or _usual(source, entries)
    if held is None:
        return None
    first = "" if key in source.jobs else "then, with the key of its row, "
    return f"{first}export it: {export_command(source, held, key if key in source.jobs else None)}"


def _usual(source: Source, entries: Sequence[Entry]) -> HeldBy | None:
    if source.anatomy is None:
        return None
    backend = str(source.cells["backend"].iloc[0]) if "backend" in source.cells else TORCH
    forms = (OWN[backend],) if backend in OWN else USUAL
    recipe = expand([dict(e) for e in entries], source.anatomy)
    return next((held for form in forms if not (held := _held(source, form)).why_not(recipe)), None)


def export_command(source: Source, held: HeldBy, key: str | None) -> str:
    """`blip2sweep export KEY --to openvino tiny-openvino`, with the folder of results where it is not the usual one."""
    words = ["blip2sweep", "export", key or "KEY", "--to", held.form]
    words += [re.sub(r"[^\w.-]+", "-", f"{source.model}-{_name(held)}").strip("-.")]
    words += ["--for", held.purpose] if held.purpose else []
    words += ["--output-dir", str(source.output_dir)] if str(source.output_dir) != "outputs" else []
    return shlex.join(words)
