"""Reads the overrides of the command line: normalises them, and refuses those that name no key or option."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from functools import cache
from typing import TypeVar

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException

from blip2sweep.config.hints import nearest_key, no_choice
from blip2sweep.config.keys import keys as every_key
from blip2sweep.config.schema import GROUPS, OF_THE_COMMAND, OPEN, known_keys, list_keys, text_keys
from blip2sweep.console.quoting import keys_override, quoted
from blip2sweep.errors import UserError

OVERRIDE = re.compile(r"^(?P<sign>[+~]{0,2})(?P<key>[A-Za-z_][\w./@-]*)(?P<rest>=.*)?$", re.DOTALL)
SINGLE = (
    "quant",
    "part",
    "per_part.",
    "layers",
    "keep",
    "drop_blocks",
    "sparsity",
    "recover",
    "rules.",
    "steps.",
    "calibration",
    "task",
    "batch_size",
)  # never lists
LISTS = (".setup", ".teardown", ".srun_args")  # of a launcher
FREE = ("model.config.", "model.parts.", "model.adapter.", "generation.presets.")
TYPES = {"converted to Integer": "an integer", "converted to Float": "a number", "a valid bool": "true or false"}
CONVERTED = re.compile(
    rf"^(?:Error merging override (?P<key>[^=\s]+)=.*?: )?Value '(?P<value>.*?)' .*?(?P<kind>{'|'.join(TYPES)})"
)
V = TypeVar("V")


def normalise(argument: str) -> str:
    """One override in the spelling that Hydra needs.

    A leading `+` is dropped, because it adds nothing: unknown keys are refused. `per_part`, `rules` and
    `dtype_per_part` hold entries that the user names, which Hydra adds only with `++`. A value of a key that holds a
    text is quoted where Hydra would read it as a number, or could not read it.
    """
    found = OVERRIDE.match(argument)
    if not found or found["key"].startswith("hydra") or not found["rest"]:
        return argument
    if found["sign"].startswith("~"):
        raise UserError(f"{argument}: keys cannot be deleted; right: {found['key']}=null")
    key, value = found["key"], found["rest"][1:]
    if key == "rerun":
        return keys_override([re.sub(r"[\[\]'\"\s]", "", value)] if value.strip("[] ") else [])
    value = _as_text(value) if key in GROUPS or key in _texts() else value
    return f"{'++' if key.startswith(OPEN) else ''}{key}={value}"


_texts = cache(text_keys)


def _as_text(value: str) -> str:
    """The value, or several values with commas, of a key that holds a text. `1e3` is not a number there, `ü` is a letter,
    and `{}` the place of a question."""
    if re.search(r"[\\'\"()\[\]{}$]", value.replace("{}", "")):  # Hydra's own quotes, functions and interpolations
        return value
    return ",".join(word if _means_itself(word) else quoted(word) for word in value.split(","))


def _means_itself(word: str) -> bool:
    if word.lower() in ("null", ""):
        return True
    try:
        (read,) = OverridesParser.create().parse_overrides([f"x={word}"])
    except HydraException:
        return False
    return isinstance(value := read.value(), str) and value == word.strip()


def parse(overrides: Sequence[str]) -> list[Override]:
    """The overrides, parsed by Hydra's own grammar. A syntax error becomes a UserError of one line."""
    parsed = []
    for typed in overrides:
        try:
            parsed += OverridesParser.create().parse_overrides([typed])
        except HydraException as error:
            reason = " ".join(str(error).split("\n")[0].split())
            right = in_quotes(typed) if typed.lstrip("+").startswith("hydra.") and "=" in typed else "key=value"
            raise UserError(f"{typed}: not a Hydra override ({reason}); right: {right}") from error
    return parsed


def in_quotes(text: str) -> str:
    """The text in quotes that the shell keeps. Hydra then reads commas and brackets in it as part of one text."""
    key, _, value = text.partition("=")
    if key.endswith(LISTS):
        return f"'{key}=[\"…\"]', a list with each text in quotes"
    return f"{key}=\\'{value}\\', in quotes that reach Hydra"


def check_keys(overrides: Iterable[Override], options: Callable[[str], list[str]] | None = None) -> None:
    """Refuse unknown keys and, given `options` (group -> its choices), unknown choices of a group."""
    keys = known_keys()
    for override in overrides:
        if override.is_hydra_override():
            _refuse_sweep(override)
            continue
        key = override.key_or_group
        if override.package is not None:
            raise UserError(f"{override.input_line}: packages (@) are not used here; right: {key}=…")
        if override.is_sweep_override() and {key, key.split(".")[0]}.intersection(OF_THE_COMMAND):
            whole = str(override.input_line).partition("=")[2].replace('"', "").replace("'", "")
            raise UserError(
                f"{override.input_line}: several values, and a sweep has one {key}; right: one value, in quotes where commas "
                f"belong to it: '{key}=\"{whole}\"'"
            )
        if isinstance(override.value(), list) and not override.is_sweep_override() and _is_single(key):
            inner = override.get_value_element_as_str().strip("[]")
            raise UserError(
                f"{override.input_line}: a list, and a cell has one value; right: -m {key}={inner} for a sweep"
            )
        if key == "output_dir" and not str(override.value() or "").strip():
            raise UserError(f"{override.input_line}: no folder; right: output_dir=FOLDER, or leave it out")
        if key in GROUPS:
            _refuse_null(override)
            if options and not isinstance(override.value(), Glob):
                _check_choice(override, options(key))
        elif not key.startswith((*FREE, *OPEN)) and key not in keys:
            raise UserError(f"{override.input_line}: unknown key '{key}'; {nearest_key(key, keys)}")


def refuse_options_of_none(overrides: Sequence[Override]) -> None:
    """Refuse options of quantization where every cell has quant=none."""
    chosen = [o for o in overrides if o.key_or_group == "quant"][-1:]
    option = next((o for o in overrides if o.key_or_group.startswith("quant.")), None)
    if option and chosen and not isinstance(chosen[0].value(), Glob) and {*map(str, values(chosen[0]))} == {"none"}:
        raise UserError(f"{option.input_line}: quant=none quantizes nothing; right: leave one of them out")


def _is_single(key: str) -> bool:
    return key.startswith(SINGLE) and key not in list_keys()


def _refuse_sweep(override: Override) -> None:
    """Refuse several values for a setting of Hydra or of the launcher. A comma outside of quotes makes a sweep, and a
    command has one such setting."""
    if override.is_sweep_override():
        text = str(override.input_line)
        _refuse_misspelt(text, override.key_or_group)
        right = "one of them" if "/" in override.key_or_group else in_quotes(text)
        raise UserError(f"{text}: several values of one setting; right: {right}")


def _refuse_misspelt(text: str, key: str) -> None:
    """Refuse a key that is nearly one of our launchers'. Another launcher may have keys that we do not know."""
    known = [name for name in every_key() if name.startswith("hydra.launcher.")]
    if key not in known and (near := get_close_matches(key, known, n=1, cutoff=0.9)):
        raise UserError(f"{text}: unknown key '{key}'; did you mean '{near[0]}'?")


def _refuse_null(override: Override) -> None:
    """Hydra takes no null for a choice. `none` is one, where a group has it."""
    if not isinstance(override.value(), Glob) and None in values(override):
        key = override.key_or_group
        raise UserError(f"{override.input_line}: null is no choice of {key}; right: leave it out, or {key}=NAME")


def _check_choice(override: Override, options: list[str]) -> None:
    for value in values(override):
        if str(value) not in options:
            raise UserError(no_choice(override.key_or_group, str(value), options))


def explain(error: BaseException, key: str | None = None) -> str:
    """The message of an error of Hydra or OmegaConf, in one line. key: that the error is about, where the caller names it."""
    text = str(error).strip()
    found = re.search(
        r"Could not find '(hydra/\w+|[^'/]+)/([^']+)'.*?Available options[^\n]*:\n(.*?)(?:Config search path|$)",
        text,
        re.DOTALL,
    )
    if found:
        options = [o for o in found[3].split() if not o.startswith("_")]
        return no_choice(found[1], found[2], options)
    if wrong := re.search(
        r"In '([^']+)': \w+ raised while composing config:\s*(.*?)\s*\n\s*full_key: (\S+)", text, re.DOTALL
    ):
        return f"{wrong[1]}.yaml: {' '.join(wrong[2].split())} ({wrong[3]}); {_right_of(wrong[3])}"
    lines = [" ".join(str(e).strip().split("\n")[0].split()) for e in (error, error.__cause__) if e is not None]
    whole = ": ".join(dict.fromkeys(line.rstrip(":") for line in lines))
    if typed := CONVERTED.search(whole):
        told = f"{typed['key']}={typed['value']}: " if typed["key"] else ""
        return told + _no_such_value(typed["key"] or key or "", TYPES[typed["kind"]])
    if typed := re.search(r"Could not override '(hydra\.launcher\.[^']+)'.*Key '\w+' is not in struct", whole):
        return f"{typed[1]}: unknown key; {nearest_key(typed[1], every_key())}"
    return whole


def _no_such_value(key: str, kind: str) -> str:
    known = every_key().get(key)
    return f"not {kind}; right: {(known.allowed if known else '') or kind}"


def _right_of(key: str) -> str:
    """What would be right of a key of a file: its name where there is none of this name, else where its values are told."""
    known = known_keys()
    if key in known:
        return f"right: see blip2sweep --help {key}"
    package = (
        "" if "." in key else "right: `# @package _global_` as the file's first line, where it holds several sections; "
    )
    return f"{package}{nearest_key(key, known)}"


def values(override: Override) -> list[object]:
    """The values of an override: one value, or those of its sweep."""
    if not override.is_sweep_override():
        return [override.value()]
    return _listed(override, lambda: list(override.sweep_iterator()))


def texts(override: Override, options: Callable[[str], list[str]]) -> list[str]:
    """The values of an override as texts in Hydra's grammar. options: returns the choices of a group, which `glob`
    needs."""
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    pattern, group = override.value(), override.key_or_group
    if isinstance(pattern, Glob) and group in GROUPS:
        return _listed(override, lambda: [quoted(n) for n in pattern.filter(options(group))])
    return _listed(override, lambda: list(override.sweep_string_iterator()))


def _listed(override: Override, values: Callable[[], list[V]]) -> list[V]:
    """The values of a sweep. Raises UserError where there are none, and where they cannot be listed."""
    text = override.input_line
    if isinstance(override.value(), Glob) and override.key_or_group not in GROUPS:
        raise UserError(
            f"{text}: glob chooses among the files of a group ({', '.join(GROUPS)}); right: the values with commas"
        )
    if not isinstance(override.value(), Glob) and not override.is_discrete_sweep():
        raise UserError(f"{text}: an interval cannot be listed; right: a list, choice(…) or range(…)")
    try:
        found = values()
    except (ValueError, TypeError) as error:  # range(2,4,0)
        raise UserError(f"{text}: {error}; right: a list, choice(…) or range(start,stop)") from error
    if not found:
        raise UserError(
            f"{text}: no value at all, so no cell; right: a list, choice(…) or range(start,stop), stop excluded"
        )
    return found
