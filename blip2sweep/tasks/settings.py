"""The settings of a task: fields of its section that its kind or its format declares, null where they are not set.

- `SCORING` of a kind, {setting: its values, the default first}: changes scores alone, so no key has it. One or several
  of the values may be chosen.
- `IDENTITY` of a kind, names: changes predictions, so the key has it.
- `OPTIONS` of a format, names: changes how files are read, and so the samples. Each that is set is an argument of
  `read`. `annotations` and `images` are options of every format whose `read` has arguments of these names; one with an
  argument `kind` is told the kind too.
- `MAIN_METRIC` of a format, {kind: metric}: of a section whose `main_metric` is empty.

A kind or a format without such settings has no such attribute.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from blip2sweep.errors import UserError, UserErrors
from blip2sweep.metrics.statistics import METRICS
from blip2sweep.metrics.variants import Declared, Variant, variants
from blip2sweep.tasks.task import Format, Task, format_of, task_of

# Fields that every task has, of its section and of a job. All others are settings.
BASE = frozenset(
    ("name", "kind", "format", "data_dir", "split", "limit", "on_bad_image", "main_metric", "nll_references",
     "train_split", "note", "planned", "share", "round")
)  # fmt: skip
FILES = ("annotations", "images")
Config = Mapping[str, object]  # a composed section `task`


@dataclass(frozen=True)
class Settings:
    """The settings of one task. scoring: the chosen values of every setting that the kind declares. identity, reading:
    those that are set."""

    scoring: Mapping[str, tuple[str, ...]]
    identity: Mapping[str, object]
    reading: Mapping[str, object]


def declared(task: Task) -> Declared:
    """The scoring settings of a kind of task: of each its values, the default first."""
    found: Declared = getattr(task, "SCORING", {})
    return found


def task_settings(config: Config) -> Settings:
    """The settings of a composed section `task`. Raises UserError, a line a mistake, for an unknown format or kind, for
    values that a setting does not have, and for settings that are set and nobody declares."""
    form, kind = str(config["format"]), str(config["kind"])
    reader = format_of(form)
    if kind not in reader.KINDS:
        held = ", ".join(reader.KINDS)
        raise UserError(f"task.kind={kind}: format {form} holds {held}; right: task.kind={held}")
    task = task_of(kind)
    given = {name: value for name, value in config.items() if name not in BASE and value is not None}
    scoring, own, options = declared(task), tuple(getattr(task, "IDENTITY", ())), _options(reader)
    mistakes = [told for name, values in scoring.items() for told in _wrong(name, given.get(name), values, kind)]
    mistakes += _unknown(given, (*scoring, *own, *options), f"kind {kind} and format {form} have")
    identity = {name: given[name] for name in own if name in given}
    mistakes += _refused(getattr(task, "check_settings", None), identity)
    if mistakes:
        raise UserErrors(mistakes) if len(mistakes) > 1 else UserError(mistakes[0])
    chosen = {name: _chosen(given.get(name)) or values[:1] for name, values in scoring.items()}
    told = {"kind": kind} if "kind" in _parameters(reader) else {}
    return Settings(chosen, identity, {**told, **{name: given[name] for name in options if name in given}})


def named_main_metric(config: Config) -> str:
    """The main metric of a section, without the suffix of a variant; empty where nobody says one."""
    known: Mapping[str, str] = getattr(format_of(str(config["format"])), "MAIN_METRIC", {})
    return str(config.get("main_metric") or known.get(str(config["kind"]), ""))


def without_scoring(config: Config) -> dict[str, object]:
    """The section without scoring settings: what is read, and what a key may depend on."""
    names = declared(task_of(str(config["kind"])))
    return {name: value for name, value in config.items() if name not in names}


def suffixes(config: Config) -> list[str]:
    """The suffixes of the chosen variants of scoring, the first first. No module is imported for a section without
    settings. Raises UserError as `task_settings` does."""
    return [""] if BASE.issuperset(settled(config)) else [v.suffix for v in chosen_variants(config)]


def chosen_variants(config: Config) -> list[Variant]:
    """The chosen variants of scoring, the first first. Raises UserError as `task_settings` does."""
    return variants(declared(task_of(str(config["kind"]))), task_settings(config).scoring)


def main_metric(name: str, suffix: str) -> str:
    """The main metric of a variant; the plain one where it has no variants, as the likelihood."""
    return name + suffix if name + suffix in METRICS else name


def settled(config: Config) -> dict[str, object]:
    """The section without the settings that are null, so that a setting of one task changes no job of another."""
    return {name: value for name, value in config.items() if name in BASE or value is not None}


def base(config: Config) -> dict[str, object]:
    """The fields that every task has."""
    return {name: value for name, value in config.items() if name in BASE}


def _options(reader: Format) -> tuple[str, ...]:
    named = _parameters(reader)
    return tuple(dict.fromkeys([*getattr(reader, "OPTIONS", ()), *(name for name in FILES if name in named)]))


def _parameters(reader: Format) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(reader.read).parameters


def _chosen(value: object) -> tuple[str, ...]:
    """The values of a scoring setting, each once."""
    several = value if isinstance(value, list | tuple) else [] if value is None else [value]
    return tuple(dict.fromkeys(map(str, several)))


def _wrong(name: str, value: object, values: tuple[str, ...], kind: str) -> Iterator[str]:
    right = f"one or several of {', '.join(values)}, such as task.{name}={','.join(values[:2])}"
    if value is not None and not _chosen(value):
        yield f"task.{name}={value}: no value; right: {right}"
    for word in (word for word in _chosen(value) if word not in values):
        yield f"task.{name}={word}: kind {kind} does not score so; right: {right}"


def _unknown(given: Config, known: tuple[str, ...], owners: str) -> Iterator[str]:
    theirs = f"{', '.join(known)}" if known else "no settings of their own"
    for name in (name for name in given if name not in known):
        yield f"task.{name}={given[name]}: {owners} {theirs}; right: task.{name}=null"


def _refused(check: Callable[[Mapping[str, object]], None] | None, identity: Mapping[str, object]) -> tuple[str, ...]:
    """The lines of what a kind says against its settings."""
    try:
        if check is not None:
            check(identity)
    except UserErrors as errors:
        return errors.lines
    except UserError as error:
        return (str(error),)
    return ()
