"""What is asked of the command itself, before Hydra reads a word: `--help`, `--version`, `--schema`, `-sc`."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from blip2sweep.console.printing import say, say_text
from blip2sweep.errors import UserError
from blip2sweep.version import VERSION

HELP, VERSIONS, COMPLETION, SCHEMA = ("--help", "-h"), ("--version", "-V"), ("-sc", "--shell-completion"), ("--schema",)
FOLDER = ("--config-dir", "-cd")
VALUES = (*FOLDER, "--config-name", "-cn", "--config-path", "-cp", "--cfg", "-c", "--info", "-i", "--package", "-p",
          "--output-dir", "--rerun")  # fmt: skip
LIBRARIES = ("torch", "transformers", "hydra-core")


def asked(words: Sequence[str], verbs: Sequence[str]) -> Callable[[], object] | None:
    """What answers such words; None where a sweep is meant. verbs: the names of all verbs."""
    flags = {word.partition("=")[0] for word in words if word.startswith("-")}
    if flags.intersection(HELP):
        return lambda: print_help(words, verbs)
    if flags.intersection(VERSIONS):
        return lambda: say(versions())
    if flags.intersection(COMPLETION):
        return lambda: complete([word for word in words if word not in COMPLETION], verbs)
    if flags.intersection(SCHEMA):
        return lambda: print_schema(_words(words)[0])
    return None


def versions() -> str:
    """One line: ours, and those of what computes."""
    found = [f"python {platform.python_version()}", *(f"{name} {_version(name)}" for name in LIBRARIES)]
    return f"blip2sweep {VERSION} ({', '.join(found)})"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


# ---- help


def print_help(words: Sequence[str], verbs: Sequence[str]) -> None:
    """The page of every word that is no flag; without one the first page."""
    from blip2sweep.commands.help import overview, told

    about, folder = _words(words)
    if not about:
        say_text(overview(verbs))
        return
    pages = [_verb(word) if _is_verb(word, verbs) else told(word, folder) for word in about]
    also = [f"A verb too: blip2sweep {word} --help" for word in about if word in verbs and not _is_verb(word, verbs)]
    say_text("\n\n".join([*pages, *also]))


def _words(words: Sequence[str]) -> tuple[list[str], Path | None]:
    """(the words that are no flags, the folder of --config-dir)."""
    about, folder, rest = list[str](), None, list(words)
    while rest:
        flag, given, value = (word := rest.pop(0)).partition("=")
        if not word.startswith("-"):
            about.append(word)
        elif flag in VALUES:
            value = value if given else (rest.pop(0) if rest else "")
            folder = Path(value) if flag in FOLDER else folder
        elif flag in (*HELP, *SCHEMA) and value:
            about.append(value)
    return about, folder


def _is_verb(word: str, verbs: Sequence[str]) -> bool:
    from blip2sweep.config.keys import keys
    from blip2sweep.config.topics import ALIASES, TOPICS

    return word == "verbs" or (word in verbs and word not in {*TOPICS, *ALIASES, *keys()})


def _verb(word: str) -> str:
    """The help of a verb; of `verbs` a line of each."""
    import typer

    from blip2sweep.cli import app

    group = typer.main.get_command(app)
    context = typer.Context(group, info_name="blip2sweep")
    commands: dict[str, typer.core.TyperCommand] = group.commands  # type: ignore[attr-defined]
    if word == "verbs":
        return "\n".join(f"  {name:<10} {command.get_short_help_str(88)}" for name, command in commands.items())
    own = commands[word]
    return own.get_help(typer.Context(own, info_name=word, parent=context)).rstrip()


# ---- completion and schema


def complete(words: Sequence[str], verbs: Sequence[str]) -> None:
    """`-sc install=bash`, `uninstall=bash`, and `query=bash`, by which a shell asks. Raises UserError for other words."""
    from blip2sweep.cli.completion import INSTALL, UNINSTALL

    what, _, shell = (words[0] if len(words) == 1 else "").partition("=")
    scripts = {"install": INSTALL, "uninstall": UNINSTALL, "query": INSTALL}.get(what, {})
    if shell not in scripts:
        given = " ".join(words) or "nothing"
        raise UserError(f"-sc {given}: right: install=SHELL or uninstall=SHELL, with bash, zsh or fish")
    say_text(_answer(shell, verbs) if what == "query" else scripts[shell].rstrip())


def _answer(shell: str, verbs: Sequence[str]) -> str:
    """The words for the line in COMP_LINE up to COMP_POINT; for fish each with what it means behind a tab."""
    from blip2sweep.cli.completion import candidates

    line, point = os.environ.get("COMP_LINE"), os.environ.get("COMP_POINT", "")
    if line is None:
        raise UserError(f"-sc query={shell}: the line is missing; right: in COMP_LINE, as a shell's completion has it")
    found = candidates(line[: int(point)] if point.isdigit() else line, verbs)
    return "\n".join(f"{word.rstrip()}\t{told}" if shell == "fish" else word for word, told in found.items())


def print_schema(groups: Sequence[str]) -> None:
    """The JSON schema of a group's files; without a group of files with several sections."""
    import json

    from blip2sweep.config.json_schema import schema

    if len(groups) > 1:
        raise UserError(f"--schema {' '.join(groups)}: several groups; right: one, such as --schema quant")
    say_text(json.dumps(schema(*groups), indent=1, ensure_ascii=False))
