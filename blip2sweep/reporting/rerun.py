"""Commands that carry a sweep on: what is evaluated, where and on which calibration samples stays, what varies does
not.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

import pandas as pd

from blip2sweep.analysis.cell_row import Row
from blip2sweep.analysis.recipes import Entry, calibrates
from blip2sweep.analysis.steps import RECOVER, of_kind
from blip2sweep.console.quoting import override, quoted
from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.models.roles import resolve_keys
from blip2sweep.recipe.setting import part_of
from blip2sweep.reporting.source import Source
from blip2sweep.results.sweeps import list_sweeps

KEPT = (
    "model",
    "task",
    "generation",
    "backend",
    "batch_size",
    "data_workers",
    "hydra/launcher",
    "hydra.launcher",
    "tracking",
)
TRAINING = ("recover.n_samples", "recover.split", "recover.data_dir")  # of recipes that are trained: on what
FOLDERS = ("--config-dir", "-cd")
# Overrides whose value a row of the table has, so that the row's own can be chosen from several.
COLUMNS = {"model": "model", "task": "task", "model.dtype": "dtype", "model.stored": "stored", "task.limit": "samples",
           "backend": "backend"}  # fmt: skip
CALIBRATION = {
    "calibration": "calibration", "calibration.n_samples": "calibration_samples", "calibration.seed": "calibration_seed",
    "calibration.upstream": "calibration_upstream", "calibration.threads": "calibration_threads",
}  # fmt: skip


def context(source: Source, recipes: Sequence[Sequence[Entry]], row: Row) -> list[str]:
    """Flags and overrides for running `recipes` as the cells at hand were run. row: a cell whose calibration is taken
    over.

    Raises UserError where the command varied something of which the table has no column.
    """
    command = command_of(source)
    if command.startswith("import"):
        arguments = [override(k, str(row[k])) for k in ("model", "task")]
    else:
        kept = (*KEPT, *(TRAINING if any(of_kind(listed, RECOVER) for listed in recipes) else ()))
        arguments = [*_flags(_split(command)), *_kept_overrides(_split(command), row, source.anatomy, kept)]
    measured = [e for listed in recipes for e in listed if calibrates(e)]
    arguments += _calibration(_split(command), row, _reads(source, measured)) if measured else []
    return [*arguments, override("output_dir", str(source.output_dir))]


def command_of(source: Source) -> str:
    """The command of the sweep; for the whole ledger that of the newest sweep that holds the baseline."""
    if source.command:
        return source.command
    base = source.cells.loc[source.cells["part"] == "none", "key"].iloc[0]
    return next((s.command for s in reversed(list_sweeps(source.output_dir)) if base in s.keys), "")


def _split(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:  # an unpaired quote of a prompt
        return command.split()


def _flags(arguments: Sequence[str]) -> Iterator[str]:
    for word, value in zip(arguments, [*arguments[1:], ""], strict=False):
        if word in FOLDERS:
            yield from (word, value)
        elif word.startswith(tuple(f"{f}=" for f in FOLDERS)):
            yield word


def _kept_overrides(
    arguments: Sequence[str], row: Row, anatomy: Anatomy | None, kept: tuple[str, ...]
) -> Iterator[str]:  # fmt: skip
    """The overrides that are kept, with the model's own names for its parts, as the rest of a suggested command has
    them."""
    for key, value in _overrides(arguments):
        if key.startswith(kept):
            named = resolve_keys(key, anatomy) if anatomy else (key,)
            yield from (f"{name}={_one(key, value, row)}" for name in named)


def _overrides(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    for word in arguments:
        key, given, value = word.partition("=")
        if given and not word.startswith("-"):
            yield key.lstrip("+"), value


def _one(key: str, value: str, row: Row) -> str:
    """The value, or the row's own where the override has several. Raises UserError where the row has no such column."""
    values = value.split(",")
    if len(values) == 1 or value[:1] in "[{'\"":
        return value
    column = COLUMNS.get(key)
    own = "" if column is None else str(row[column]).partition(" ")[0] if key == "backend" else str(row[column])
    if own not in values:
        raise UserError(
            f"the sweep varied {key}={value} and its rows do not say which is theirs; right: one sweep a value"
        )
    return quoted(own) if key in ("model", "task") else own


def _reads(source: Source, measured: Sequence[Entry]) -> bool:
    """Whether a part that reads text is among those measured; True where the model's parts are not known."""
    parts = source.anatomy.parts if source.anatomy else {}
    return any(part not in parts or parts[part].reads_text for part in map(part_of, measured))


def _calibration(arguments: Sequence[str], row: Row, reading: bool) -> list[str]:
    """The row's own, else the command's arguments. The weight of image tokens is the language model's alone."""
    given = {k: v for k, v in _overrides(arguments) if k.split(".")[0] == "calibration"}
    if not reading:
        given.pop("calibration.image_token_weight", None)
    given = {k: _one(k, v, row) for k, v in given.items() if k not in CALIBRATION}
    own = {k: v for k, c in CALIBRATION.items() if (v := row.get(c)) is not None and v is not pd.NA and v == v}
    given |= {k: str(int(v) if isinstance(v, float) else v) for k, v in own.items()}
    return [f"{k}={v}" for k, v in given.items()]
