"""Overrides as typed on the command line: normalised, and refused with one line when they name nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from blip2sweep.config.schema import GROUPS, OPEN, known_keys
from blip2sweep.errors import UserError, nearest

OVERRIDE = re.compile(r"^(?P<sign>[+~]{0,2})(?P<key>[A-Za-z_][\w./@-]*)(?P<rest>=.*)?$", re.DOTALL)
SINGLE = ("quant", "part", "per_part.", "layers", "keep", "rules.", "calibration", "task", "batch_size")  # never lists
LISTS = (".setup", ".teardown", ".srun_args")  # of a launcher
FREE = ("model.config.", "model.parts.", "generation.presets.")


def normalise(argument: str) -> str:
    """Spell one override as Hydra needs it.

    `+` adds nothing here, since unknown keys are refused, so it is dropped; `per_part`, `rules` and `dtype_per_part`
    hold entries the user names, which Hydra only adds with `++`.
    """
    found = OVERRIDE.match(argument)
    if not found or found["key"].startswith("hydra") or not found["rest"]:
        return argument
    if found["sign"].startswith("~"):
        raise UserError(f"{argument}: keys cannot be deleted; right: {found['key']}=null")
    added = "++" if found["key"].startswith(OPEN) else ""
    return f"{added}{found['key']}{found['rest']}"


def parse(overrides: Sequence[str]) -> list[Override]:
    """Hydra's own grammar; a syntax error becomes one line."""
    parsed = []
    for text in overrides:
        try:
            parsed += OverridesParser.create().parse_overrides([text])
        except HydraException as error:
            reason = " ".join(str(error).split("\n")[0].split())
            right = in_quotes(text) if text.lstrip("+").startswith("hydra.") and "=" in text else "key=value"
            raise UserError(f"{text}: not a Hydra override ({reason}); right: {right}") from error
    return parsed


def in_quotes(text: str) -> str:
    """How a text that Hydra would take apart (commas, brackets, …) is typed as one: in quotes that the shell leaves."""
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
        if isinstance(override.value(), list) and not override.is_sweep_override() and key.startswith(SINGLE):
            inner = override.get_value_element_as_str().strip("[]")
            raise UserError(
                f"{override.input_line}: a list, and a cell has one value; right: -m {key}={inner} for a sweep"
            )
        if key in GROUPS:
            if options:
                _check_choice(override, options(key))
        elif not key.startswith((*FREE, *OPEN)) and key not in keys:
            raise UserError(f"{override.input_line}: unknown key '{key}'; {_nearest_key(key, keys)}")


def _refuse_sweep(override: Override) -> None:
    """A comma outside of quotes makes a sweep, and settings of Hydra's, the launcher's among them, are one a command."""
    if override.is_sweep_override():
        text = str(override.input_line)
        right = "one of them" if "/" in override.key_or_group else in_quotes(text)
        raise UserError(f"{text}: several values of one setting; right: {right}")


def _check_choice(override: Override, options: list[str]) -> None:
    for value in values(override):
        if str(value) not in (*options, "None", "null"):
            raise UserError(
                f"{override.key_or_group}={value}: no such {override.key_or_group}; {nearest(str(value), options)}"
            )


def explain(error: BaseException) -> str:
    """One line for a complaint of Hydra's or OmegaConf's own."""
    text = str(error).strip()
    found = re.search(
        r"Could not find '([^']+)/([^'/]+)'.*?Available options[^\n]*:\n(.*?)(?:Config search path|$)", text, re.DOTALL
    )
    if found:
        options = [o for o in found[3].split() if not o.startswith("_")]
        return f"{found[1]}={found[2]}: no such {found[1]}; {nearest(found[2], options)}"
    lines = [" ".join(str(e).strip().split("\n")[0].split()) for e in (error, error.__cause__) if e is not None]
    return ": ".join(dict.fromkeys(line.rstrip(":") for line in lines))


def _nearest_key(key: str, keys: Iterable[str]) -> str:
    head = key.rpartition(".")[0]
    siblings = [k for k in keys if k.rpartition(".")[0] == head]
    return nearest(key, siblings or [k for k in keys if "." not in k])


def values(override: Override) -> list[object]:
    """The values of an override: one, or those of its sweep."""
    if not override.is_sweep_override():
        return [override.value()]
    if not override.is_discrete_sweep():
        raise UserError(f"{override.input_line}: an interval cannot be listed; right: a list, choice(…) or range(…)")
    return list(override.sweep_iterator())
