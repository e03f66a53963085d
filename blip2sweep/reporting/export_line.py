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


def export_line(
    source: Source, held: HeldBy | None, entries: Sequence[Entry], key: str | None, words: Sequence[str]
) -> str | None:  # fmt: skip
    """The line with the command that writes a recipe's model: packed in a format, or as a plain checkpoint where no usual
    format holds it; None where it is neither.

    held: of the format that was asked for. key: of its cell; None where it has to be measured first. words: those that mean
    the same cell where its key is not known here.
    """
    held = held or usual(source, entries)
    known = key is not None and (key in source.jobs or key in pack_jobs(source.output_dir))  # it may just have been run
    means = [key] if known and key is not None else words
    first = "" if known else "once it is measured, "
    if held is not None:
        return f"{first}export it: {command('export', source, held.form, held.name, held.purpose, means)}"
    if _backend(source) != TORCH:
        return None
    return f"{first}write it as a checkpoint: {command('quantize', source, None, 'dense', None, means)}"


def command(
    verb: str, source: Source, form: str | None, name: str, purpose: str | None, words: Sequence[str]
) -> str:  # fmt: skip
    """A command that hands a model out, with the folder of results where it is not the usual one."""
    folder = re.sub(r"[^\w.-]+", "-", f"{source.model}-{name}").strip("-.")
    typed = ["blip2sweep", verb, *words, "--to", *([form] if form else []), folder]
    typed += ["--for", purpose] if purpose else []
    typed += ["--output-dir", str(source.output_dir)] if str(source.output_dir) != "outputs" else []
    return shlex.join(typed)


def usual(source: Source, entries: Sequence[Entry]) -> HeldBy | None:
    """The first usual format that holds a recipe of the cells' back end; None where none does."""
    if source.anatomy is None:
        return None
    tried = (_held(source, form) for form in forms_of(_backend(source)))
    return next((held for held in tried if not held.why_not_entries(entries)), None)


def export_command(source: Source, held: HeldBy, key: str) -> str:
    """`blip2sweep export KEY --to openvino tiny-openvino`, with the folder of results where it is not the usual one."""
    return command("export", source, held.form, held.name, held.purpose, [key])
