"""Every key with its meaning, type and default: the schema and the reference, put together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import yaml

from blip2sweep.config.means import Means
from blip2sweep.config.schema import Config
from blip2sweep.config.topics import TOPICS

LAUNCHER = "hydra.launcher."
KINDS = {"str": "text", "int": "integer", "float": "number", "bool": "true or false", "list": "list", "dict": "mapping"}
ANY = "any"


class Type(NamedTuple):
    """The type of a key's value: one of KINDS or `any`, and whether null is right."""

    kind: str
    null: bool


@dataclass(frozen=True)
class Key:
    """One key of the config. kind: the type of its value, one of KINDS or `any`; null: whether null is right."""

    name: str
    topic: str
    kind: str
    null: bool
    means: Means

    @property
    def words(self) -> tuple[str, ...]:
        """The words that it takes, for a list of choices."""
        return ("true", "false") if self.kind == KINDS["bool"] else tuple(self.means.values.split())

    @property
    def allowed(self) -> str:
        """What it takes, in one line."""
        return ", ".join(text for text in (*self.words, self.means.right, "null" if self.null else "") if text)


@cache
def keys() -> dict[str, Key]:
    """Every key by its dotted name, in the order of the topics."""
    types = {**dict(_types(Config(), "")), **{k: _type_of(v) for k, v in launcher_defaults().items()}}
    return {key.name: key for name in TOPICS for key in _of_topic(name, types)}


def _of_topic(topic: str, types: Mapping[str, Type]) -> Iterator[Key]:
    section = TOPICS[topic].section
    for name, means in TOPICS[topic].keys.items():
        full = f"{section}.{name}" if section else name
        yield Key(full, topic, *types.get(full, Type(ANY, True)), means)


def _types(node: object, prefix: str) -> Iterator[tuple[str, Type]]:
    assert is_dataclass(node)
    for f in fields(node):
        value, (name, _, rest) = getattr(node, f.name), str(f.type).partition(" | ")
        if is_dataclass(value):
            yield prefix + f.name, Type(KINDS["dict"], False)
            yield from _types(value, f"{prefix}{f.name}.")
        else:
            null = rest == "None" or (name == "Any" and value is None)
            yield prefix + f.name, Type(KINDS.get(name.partition("[")[0], ANY), null)


def _type_of(default: object) -> Type:
    """Of a launcher's setting, whose schema is the launcher's: a number may be null, a flag may not."""
    return Type(ANY if default is None else KINDS[type(default).__name__], not isinstance(default, bool | dict))


# ---- files of conf/


def package_root() -> Path:
    """The folder of the package's own YAML."""
    return Path(str(files("blip2sweep.conf")))


def groups(*roots: Path) -> dict[str, list[str]]:
    """{group: its choices} of folders of YAML, the package's own first. A name that begins with `_` is a piece of others."""
    found: dict[str, list[str]] = {}
    for root in (package_root(), *roots):
        for path in sorted(root.glob("*/**/*.yaml")):
            parts = path.relative_to(root).with_suffix("").parts
            depth = 2 if parts[0] == "hydra" else 1  # hydra/launcher is a group; experiment/mine/a is a choice `mine/a`
            group, name = found.setdefault("/".join(parts[:depth]), []), "/".join(parts[depth:])
            group += [name] if not path.name.startswith("_") and name not in group else []
    return found


def choice_text(group: str, name: str, folder: Path | None = None) -> str | None:
    """The YAML of a choice: the user's own folder goes first. None where there is none."""
    roots = [*([folder] if folder else []), package_root()]
    paths = [root / group / f"{name}.yaml" for root in roots]
    return next((path.read_text(encoding="utf-8") for path in paths if path.is_file()), None)


@cache
def launcher_defaults() -> dict[str, object]:
    """{key: default} of both launchers."""
    found: dict[str, object] = {}
    for name in ("slurm", "local"):
        text = choice_text("hydra/launcher", name)
        assert text is not None
        found |= {LAUNCHER + k: v for k, v in yaml.safe_load(text).items() if k != "_target_"}
    return found
