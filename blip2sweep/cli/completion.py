"""Tab completion: the words that may stand where the cursor is, and the scripts by which a shell asks for them.

A script calls `blip2sweep -sc query=SHELL` with COMP_LINE and COMP_POINT, as Hydra's do. No config is composed for an
answer, so it takes as long as Python needs to start.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from blip2sweep.config.json_schema import names
from blip2sweep.config.keys import Key, groups, keys
from blip2sweep.config.topics import TOPICS
from blip2sweep.hydra_app import VERBS
from blip2sweep.models.part import ROLES
from blip2sweep.models.shipped import model_anatomy, shipped_models

# {flag: the words that may follow it}. After others stands a file, or nothing of its own.
FLAGS: dict[str, tuple[str, ...]] = {
    "-m": (), "--multirun": (), "--help": (), "--version": (), "--hydra-help": (), "--schema": (), "--output-dir": (),
    "--rerun": (), "--config-dir": (), "--config-name": (), "--cfg": ("job", "hydra", "all"), "--resolve": (),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    "-sc": tuple(f"{what}={shell}" for what in ("install", "uninstall") for shell in ("bash", "zsh", "fish")),
}  # fmt: skip
FILES = ("--output-dir", "--config-dir", "-cd", "--config-name", "-cn", "--rerun")
OF_FILES = ("recipe_file", "output_dir", "model.path", "model.original", "task.data_dir")
PER_PART = "per_part."
TAKEN_AWAY = ("quantize", "export")  # verbs that take a key or overrides as one list of words
DEFAULT_MODEL = "tiny"


def candidates(line: str, verbs: Sequence[str]) -> dict[str, str]:
    """{word: what it means} that may stand at the end of a line. A word that is complete ends with a blank."""
    words = line.split()
    current = "" if not words or line[-1].isspace() else words.pop()
    before = _without_program(words)
    found = dict(_found(before, current, verbs))
    return {word: told for word, told in found.items() if word.startswith(current)}


def _without_program(words: Sequence[str]) -> Sequence[str]:
    return words[3:] if words[1:2] == ["-m"] and words[2:3] == ["blip2sweep"] else words[1:]


def _found(before: Sequence[str], current: str, verbs: Sequence[str]) -> Iterator[tuple[str, str]]:
    last = before[-1] if before else ""
    if before and before[0] in verbs and before[0] not in VERBS:
        yield from _of_verb(before[0], before[1:], before, current)
    elif set(before) & {"--help", "-h"}:
        yield from ((f"{name} ", topic.title) for name, topic in TOPICS.items())
        yield from ((f"{name} ", key.means.meaning) for name, key in keys().items())
        yield from ((f"{verb} ", "") for verb in ("verbs", *verbs))
    elif "--schema" in before:
        yield from ((f"{group} ", "") for group in names())
    elif FLAGS.get(last):
        yield from ((f"{word} ", "") for word in FLAGS[last])
    elif current.startswith("-"):
        yield from ((f"{flag} ", "") for flag in (*FLAGS, *(VERBS[verb] for verb in before[:1] if verb in VERBS)))
    elif last not in FILES:
        yield from ((f"{verb} ", "") for verb in verbs if not before)
        yield from _overrides(current, groups(*_folders(before)), _parts(before))


def _folders(before: Sequence[str]) -> list[Path]:
    given = [b for a, b in itertools.pairwise(before) if a in ("--config-dir", "-cd")]
    given += [word.partition("=")[2] for word in before if word.startswith(("--config-dir=", "-cd="))]
    return [Path(folder).expanduser() for folder in given]


# ---- overrides


def _overrides(current: str, known: Mapping[str, Sequence[str]], parts: Sequence[str]) -> Iterator[tuple[str, str]]:
    sign = current[: len(current) - len(current.lstrip("+"))]
    name, given, value = current[len(sign) :].partition("=")
    if given:
        start = current[: len(current) - len(value.rpartition(",")[2])]
        yield from ((f"{start}{word}", "") for word in _values(name, known, parts) if word not in value.split(",")[:-1])
    else:
        yield from ((f"{sign}{word}", told) for word, told in _names(name, known, parts))


def _parts(before: Sequence[str]) -> list[str]:
    """The names that the parts of the model have which the words choose, where it is a shipped one."""
    named = [word.partition("=")[2] for word in before if word.startswith("model=")]
    model = named[-1] if named else DEFAULT_MODEL
    return [*model_anatomy(model).parts] if model in shipped_models() else []


def _values(name: str, known: Mapping[str, Sequence[str]], parts: Sequence[str]) -> Iterable[str]:
    if name in known:
        return known[name]
    if name == "part":
        return [*keys()[name].words, *parts]
    option = f"quant.{name.split('.', 2)[-1]}" if name.startswith(PER_PART) else name
    return keys()[option].words if option in keys() else ()


def _names(name: str, known: Mapping[str, Sequence[str]], parts: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Names of one level, as a shell completes folders: those of a section once it is typed."""
    level = name[: name.rfind(".") + 1]
    if level.count(".") == 2 and level.startswith(PER_PART):
        yield from ((f"{level}{k.name.removeprefix('quant.')}=", k.means.meaning) for k in _of("quant."))
    elif level == PER_PART:
        yield from ((f"{PER_PART}{role}.", f"options of quant for {role}") for role in (*ROLES, *parts))
    elif level:
        yield from ((f"{key.name}=", key.means.meaning) for key in _of(level))
    else:
        yield from ((f"{group}=", _title(group)) for group in known)
        yield from ((f"{topic.section}.", topic.title) for topic in TOPICS.values() if topic.section)
        yield from ((f"{key.name}=", key.means.meaning) for key in keys().values() if "." not in key.name)
        yield from ((PER_PART, "options of quant for one part"), ("hydra.launcher.", "of the launcher"))


def _of(level: str) -> Iterator[Key]:
    return (key for key in keys().values() if key.name.startswith(level))


def _title(group: str) -> str:
    return TOPICS[group].title if group in TOPICS else ""


# ---- verbs


def _of_verb(verb: str, after: Sequence[str], before: Sequence[str], current: str) -> Iterator[tuple[str, str]]:
    """The flags of a verb, its own verbs, and the names of sweeps and the keys of cells where it takes one."""
    import typer

    from blip2sweep.cli import app

    command = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]
    inner: Mapping[str, typer.core.TyperCommand] = getattr(command, "commands", {})
    if inner and not after:
        yield from ((f"{name} ", "") for name in inner)
    command = inner.get(after[0], command) if after else command
    if after and (listed := _of_flag(verb, after[-1])):
        yield from ((f"{word} ", "") for word in listed)
        return
    if verb in TAKEN_AWAY and current[:1] != "-":
        yield from _overrides(current, groups(*_folders(before)), _parts(before))
    for parameter in command.params:
        yield from ((f"{flag} ", getattr(parameter, "help", "") or "") for flag in parameter.opts if flag[0] == "-")
        shown = f"{parameter.name} {getattr(parameter, 'metavar', None)}".upper()
        if parameter.param_type_name == "argument" and "SWEEP" in shown:
            yield from ((f"{path.parent.name} ", "") for path in _sweeps(before))
        if parameter.param_type_name == "argument" and ("KEY" in shown or verb in TAKEN_AWAY):
            yield from ((f"{key} ", "") for key in sorted({key for path in _sweeps(before) for key in _keys(path)}))


def _of_flag(verb: str, flag: str) -> Iterable[str]:
    """The words that may follow a flag of a verb; none where they are a file, a number or a name."""
    if verb == "table" and flag in ("--format", "-f"):
        from blip2sweep.reporting.table_asked import FORMATS as OF_TABLES

        return OF_TABLES
    if flag in ("--for", "--to"):
        from blip2sweep.exporting import FORMATS, SERVED

        found = {"recommend --for": [*FORMATS, *SERVED], "export --for": SERVED, "export --to": FORMATS}
        return found.get(f"{verb} {flag}", ())
    return ("rich", "json") if flag in ("--format", "-f") else ()


def _sweeps(before: Sequence[str]) -> list[Path]:
    """The files of the sweeps of the output folder that the words, the environment or nobody names."""
    given = [b for a, b in itertools.pairwise(before) if a == "--output-dir"]
    output_dir = given[-1] if given else os.environ.get("BLIP2SWEEP_OUTPUT_DIR", "outputs")
    return sorted(Path(output_dir).glob("sweeps/*/sweep.json"))


def _keys(path: Path) -> list[str]:
    """The keys of a sweep's cells; none of a file that is no sweep's."""
    try:
        return [str(key) for key in json.loads(path.read_text(encoding="utf-8"))["keys"] if key]
    except (OSError, ValueError, KeyError, TypeError):
        return []


# ---- scripts

BASH = """\
# Tab completion of blip2sweep. In ~/.bashrc: eval "$(blip2sweep -sc install=bash)"
_blip2sweep() {
  local line=${COMP_LINE:0:COMP_POINT} current head= choice
  current=${line##*[[:space:]]}
  # Readline replaces what follows the last of its word breaks.
  if [[ $COMP_WORDBREAKS == *=* && $current == *=* ]]; then head=${current%"${current##*=}"}; fi
  COMPREPLY=()
  while IFS= read -r choice; do
    [ -z "$choice" ] || COMPREPLY+=("${choice#"$head"}")
  done < <(COMP_LINE=$line COMP_POINT=${#line} "$1" -sc query=bash 2>/dev/null)
}
complete -o nospace -o default -F _blip2sweep blip2sweep
"""
ZSH = """\
# Tab completion of blip2sweep. In ~/.zshrc: eval "$(blip2sweep -sc install=zsh)"
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
_blip2sweep() {
  local -a found whole
  found=("${(@f)$(COMP_LINE=$LBUFFER COMP_POINT=${#LBUFFER} $words[1] -sc query=zsh 2>/dev/null)}")
  whole=("${(@M)found:#* }")
  whole=("${(@)whole% }")
  found=("${(@)found:#* }")
  if [[ -z "$found$whole" ]]; then compset -P '*='; _files; return; fi
  compadd -- $whole
  compadd -S '' -- $found
}
compdef _blip2sweep blip2sweep
"""
FISH = """\
# Tab completion of blip2sweep. In ~/.config/fish/config.fish: blip2sweep -sc install=fish | source
function __blip2sweep
  set -lx COMP_LINE (commandline -cp)
  set -lx COMP_POINT (string length -- "$COMP_LINE")
  set -l parts (commandline -cpo)
  $parts[1] -sc query=fish 2>/dev/null
end
complete -c blip2sweep -a '(__blip2sweep)'
"""
INSTALL = {"bash": BASH, "zsh": ZSH, "fish": FISH}
UNINSTALL = {
    "bash": "complete -r blip2sweep\nunset -f _blip2sweep\n",
    "zsh": "compdef -d blip2sweep\nunfunction _blip2sweep\n",
    "fish": "complete -e -c blip2sweep\nfunctions -e __blip2sweep\n",
}
