"""Commands that carry a sweep on: what is evaluated, where and on which calibration samples stays, what varies does not."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from blip2sweep.analysis.recipes import Entry, calibrates, part_of
from blip2sweep.console.quoting import override, quoted
from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.models.roles import own_keys
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
FOLDERS = ("--config-dir", "-cd")
# Overrides that a row of the table has the value of, so that one of several values can be told to be the row's.
COLUMNS = {"model": "model", "task": "task", "model.dtype": "dtype", "task.limit": "samples"}
CALIBRATION = {
    "calibration": "calibration", "calibration.n_samples": "calibration_samples", "calibration.seed": "calibration_seed",
    "calibration.upstream": "calibration_upstream", "calibration.threads": "calibration_threads",
}  # fmt: skip


def context(source: Source, recipes: Sequence[Sequence[Entry]], row: Mapping[Any, Any]) -> list[str]:
    """Flags and overrides for running `recipes` as the cells at hand were run. row: a cell whose calibration is taken over.

    Raises UserError where the command varied something that the table's rows do not tell.
    """
    command = command_of(source)
    if command.startswith("import"):
        words = [override(k, str(row[k])) for k in ("model", "task")]
    else:
        words = [*_flags(_split(command)), *_kept(_split(command), row, source.anatomy)]
    measured = [e for listed in recipes for e in listed if calibrates(e)]
    words += _calibration(_split(command), row, _reads(source, measured)) if measured else []
    return [*words, override("output_dir", str(source.output_dir))]


def command_of(source: Source) -> str:
    """The sweep's own; for the whole ledger that of the newest sweep which holds the baseline."""
    if source.command:
        return source.command
    base = source.cells.loc[source.cells["part"] == "none", "key"].iloc[0]
    return next((s.command for s in reversed(list_sweeps(source.output_dir)) if base in s.keys), "")


def _split(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:  # an unpaired quote of a prompt
        return command.split()


def _flags(words: Sequence[str]) -> Iterator[str]:
    for word, value in zip(words, [*words[1:], ""], strict=False):
        if word in FOLDERS:
            yield from (word, value)
        elif word.startswith(tuple(f"{f}=" for f in FOLDERS)):
            yield word


def _kept(words: Sequence[str], row: Mapping[Any, Any], anatomy: Anatomy | None) -> Iterator[str]:
    """With the model's own names for its parts, as in the rest of a suggested command."""
    for key, value in _overrides(words):
        if key.startswith(KEPT):
            named = own_keys(key, anatomy) if anatomy else (key,)
            yield from (f"{name}={_one(key, value, row)}" for name in named)


def _overrides(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    for word in words:
        key, given, value = word.partition("=")
        if given and not word.startswith("-"):
            yield key.lstrip("+"), value


def _one(key: str, value: str, row: Mapping[Any, Any]) -> str:
    """The value itself, or of several that of the row."""
    values = value.split(",")
    if len(values) == 1 or value[:1] in "[{'\"":
        return value
    column = COLUMNS.get(key)
    if column is None or str(row[column]) not in values:
        raise UserError(
            f"the sweep varied {key}={value} and its rows do not say which is theirs; right: one sweep a value"
        )
    return quoted(str(row[column])) if key in ("model", "task") else str(row[column])


def _reads(source: Source, measured: Sequence[Entry]) -> bool:
    """Whether the language model is measured, as far as its name is known."""
    parts = source.anatomy.parts if source.anatomy else {}
    return any(part not in parts or parts[part].reads_text for part in map(part_of, measured))


def _calibration(words: Sequence[str], row: Mapping[Any, Any], reading: bool) -> list[str]:
    """The row's own, else the command's words. The weight of image tokens is the language model's alone."""
    given = {k: v for k, v in _overrides(words) if k.split(".")[0] == "calibration"}
    if not reading:
        given.pop("calibration.image_token_weight", None)
    given = {k: _one(k, v, row) for k, v in given.items() if k not in CALIBRATION}
    own = {k: row[c] for k, c in CALIBRATION.items() if not pd.isna(row.get(c))}
    given |= {k: str(int(v) if isinstance(v, float) else v) for k, v in own.items()}
    return [f"{k}={v}" for k, v in given.items()]
