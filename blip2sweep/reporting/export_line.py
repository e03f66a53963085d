"""What of a sweep can be handed out, in which format, and the command that writes it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from blip2sweep.analysis.held_by import HeldBy, format_named, forms_of
from blip2sweep.analysis.recipes import Entry
from blip2sweep.errors import UserError
from blip2sweep.reporting.source import Source, pack_jobs

TORCH = "torch"


def held_by(source: Source, name: str) -> HeldBy:
    """What the format of `--for` holds of the model. Raises UserError where there is none, or no cell is one of its
    back end."""
    form, purpose = format_named(name)
    backend = _backend(source)
    own = forms_of(backend)
    if len(own) == 1 and own[0] != form:
        raise UserError(f"--for {name}: cells of backend={backend} run another format; right: --for {own[0]}")
    return _held(source, form, purpose)


def _backend(source: Source) -> str:
    """The name of the cells' back end, without its options."""
    return str(source.cells["backend"].iloc[0]).partition(" ")[0] if "backend" in source.cells else TORCH


def _held(source: Source, form: str, purpose: str | None = None) -> HeldBy:
    anatomy = source.known_anatomy
    assert source.section is not None
    return HeldBy(form, purpose, source.section, anatomy)


def export_line(source: Source, held: HeldBy | None, entries: Sequence[Entry], key: str | None) -> str | None:
    """The line with the command that writes a recipe's model; None where no usual format holds it.

    held: of the format that was asked for. key: of its cell; None where it has to be measured first.
    """
    held = held or usual(source, entries)
    if held is None:
        return None
    known = key if key in source.jobs or key in pack_jobs(source.output_dir) else None  # it may just have been run
    first = "" if known else "then, with the key of its row, "
    return f"{first}export it: {export_command(source, held, known)}"


def usual(source: Source, entries: Sequence[Entry]) -> HeldBy | None:
    """The first usual format that holds a recipe of the cells' back end; None where none does."""
    if source.anatomy is None:
        return None
    tried = (_held(source, form) for form in forms_of(_backend(source)))
    return next((held for held in tried if not held.why_not_entries(entries)), None)


def export_command(source: Source, held: HeldBy, key: str | None) -> str:
    """`blip2sweep export KEY --to openvino tiny-openvino`, with the folder of results where it is not the usual one."""
    words = ["blip2sweep", "export", key or "KEY", "--to", held.form]
    words += [re.sub(r"[^\w.-]+", "-", f"{source.model}-{held.name}").strip("-.")]
    words += ["--for", held.purpose] if held.purpose else []
    words += ["--output-dir", str(source.output_dir)] if str(source.output_dir) != "outputs" else []
    return shlex.join(words)
