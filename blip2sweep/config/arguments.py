"""Turns the arguments of `python -m blip2sweep` into those of Hydra's main, and checks each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Override

from blip2sweep.config.hints import flag_for_key, refuse_loose
from blip2sweep.config.keys import launcher_defaults
from blip2sweep.config.overrides import OVERRIDE, check_keys, normalise, parse
from blip2sweep.config.schema import known_keys
from blip2sweep.console.quoting import keys_override, path_override
from blip2sweep.errors import UserError

TAKES_VALUE = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--cfg", "-c", "--info", "-i",
               "--package", "-p", "--experimental-rerun")  # fmt: skip
SHOWS = ("--cfg", "-c", "--info", "-i")  # flags that print and run nothing
MULTIRUN = ("-m", "--multirun")


def arguments(words: Sequence[str]) -> list[str]:
    """Hydra's arguments: flags first, as its parser needs them, then overrides. `--output-dir` and `--rerun` become
    overrides."""
    flags, overrides, typed, again, rest = [], [], list[str](), list[str](), list(words)
    while rest:
        word = rest.pop(0)
        flag, given, value = word.partition("=")
        if flag in ("--output-dir", "--rerun"):
            value = value if given else (rest.pop(0) if rest else "")
            overrides += [path_override("output_dir", value, flag)] if flag == "--output-dir" else []
            again += [value] if flag == "--rerun" else []
        elif word.startswith("-"):
            takes = word in TAKES_VALUE and rest and not rest[0].startswith("-")
            flags += [word, rest.pop(0)] if takes else [word]
        else:
            typed.append(word)
            overrides.append(normalise(no_loose_comma(word)))
    flag_for_key(flags, {*known_keys(), *launcher_defaults()}, words)
    refuse_loose(typed, known_keys())
    overrides += [keys_override(again)] if again else []
    parsed = parse([o for o in overrides if OVERRIDE.match(o) and "=" in o])
    check_keys(parsed)
    _check_mode(parsed)
    return [*_checked_flags(flags, parsed), *overrides]


def no_loose_comma(word: str) -> str:
    """The word. Raises UserError where a blank after a comma has torn it apart."""
    if word.endswith(",") and "=" in word:
        raise UserError(f"{word} ends with a comma; right: no space between values, as in quant.bits=2,4")
    return word


def _check_mode(overrides: Sequence[Override]) -> None:
    for override in overrides:
        if override.key_or_group == "hydra.mode" and override.value() != "MULTIRUN":
            raise UserError(f"{override.input_line}: everything here is a sweep, of one cell too; right: leave it out")


def _checked_flags(flags: Sequence[str], overrides: Sequence[Override]) -> Sequence[str]:
    """The flags, checked. Raises UserError, one line, where Hydra's parser would print its usage."""
    names = {f.partition("=")[0] for f in flags}
    if names & set(SHOWS):  # of one cell, and `-m` is what is meant without it too
        flags = [f for f in flags if f not in MULTIRUN]
        several = next((o.input_line for o in overrides if o.is_sweep_override()), None)
        if several:
            raise UserError(f"{several}: several values, and what is shown is the config of one cell; right: one value")
    if "--experimental-rerun" in names:
        raise UserError("--experimental-rerun: takes a pickle, which may run anything; right: the sweep's own words")
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    parser.parse_args([f for f in flags if f != "--version"])
    return flags


def _refuse(message: str) -> NoReturn:
    raise UserError(f"{message}; right: see python -m blip2sweep --hydra-help")
