"""The JSON schema of the project's YAML files, for editors that complete and check them (draft 7, as the YAML language
server of editors reads it).
"""

from __future__ import annotations

from collections.abc import Iterable

from blip2sweep.config.keys import ANY, LAUNCHER, Key, keys
from blip2sweep.config.schema import list_keys
from blip2sweep.config.topics import TOPICS
from blip2sweep.errors import UserError, nearest

Schema = dict[str, object]
DRAFT = "http://json-schema.org/draft-07/schema#"
JSON_TYPES = {"text": "string", "integer": "integer", "number": "number", "true or false": "boolean", "list": "array", "mapping": "object"}  # fmt: skip
# Of OmegaConf: `${key}` and `???`, a value that is yet to be given, stand for a value of any type.
LATER: Schema = {"type": "string", "pattern": r"\$\{|^\?\?\?$"}
DEFAULTS: Schema = {"type": "array", "description": "choices of groups: `- override /quant: gptq`, then `- _self_`"}


def schema(group: str | None = None) -> Schema:
    """Of a group's files; without one, of files with several sections (`# @package _global_`): experiments, studies, and
    a primary config. Raises UserError for a name that is no group."""
    sections = _sections()
    if group is None or group in ("experiment", "study"):
        return _whole(sections)
    if group not in sections:
        raise UserError(f"--schema {group}: no such group; {nearest(group, names())}")
    return {"$schema": DRAFT, "title": f"blip2sweep: a file of {group}/", **_object(sections[group])}


def names() -> list[str]:
    """The groups whose files have a schema."""
    return [*_sections(), "experiment", "study"]


def _sections() -> dict[str, Schema]:
    """{group: the schemas of its keys}."""
    known = keys().values()
    found = {t.section: [key for key in known if key.topic == name] for name, t in TOPICS.items() if t.section}
    made = {section: _properties(own, f"{section}.") for section, own in found.items()}
    launcher = _properties((key for key in known if key.name.startswith(LAUNCHER)), LAUNCHER)
    made["hydra/launcher"] = {"_target_": {"type": "string"}, **launcher}
    return made


def _whole(sections: dict[str, Schema]) -> Schema:
    single = _properties((key for key in keys().values() if key.topic in ALONE and "." not in key.name), "")
    named = {name: {"$ref": f"#/definitions/{name}"} for name in sections if "/" not in name}
    launcher = {"type": "object", "properties": sections["hydra/launcher"]}
    hydra = {"type": "object", "properties": {"launcher": launcher, "sweeper": {"type": "object"}}}
    own: Schema = {**named, **single, "hydra": {"description": "Hydra's own settings", **hydra}}
    inner = {name: _object(own) for name, own in sections.items() if "/" not in name}
    return {"$schema": DRAFT, "title": "blip2sweep: a file with several sections", **_object(own), "definitions": inner}


ALONE = [name for name, topic in TOPICS.items() if not topic.section]  # topics whose keys stand in no section


def _object(properties: Schema) -> Schema:
    return {"type": "object", "properties": {"defaults": DEFAULTS, **properties}, "additionalProperties": False}


def _properties(own: Iterable[Key], start: str) -> Schema:
    """The schemas of keys by their names in the section. Those of a section inside it stand in one of its own."""
    found: Schema = {}
    inner: dict[str, Schema] = {}
    for key in own:
        name, dot, below = key.name.removeprefix(start).partition(".")
        if dot:
            inner.setdefault(name, {})[below] = _value(key)
        else:
            found[name] = {"description": key.means.meaning, **_value(key)}
    sections = {
        name: {"type": "object", "properties": keys, "additionalProperties": False} for name, keys in inner.items()
    }
    return {**found, **sections}


def _value(key: Key) -> Schema:
    """What one key takes. Where words are not all there is, they are offered, and any value of its type is right too."""
    words = [_typed(word) for word in key.words]
    if key.kind == ANY and (key.means.right or not words):
        return {"examples": words} if words else {}
    kinds: list[Schema] = [{"enum": words}] if words else []
    if words and key.name in list_keys():
        kinds.append({"type": "array", "items": {"enum": words}})
    if key.means.right or not words:
        kinds.append({"type": JSON_TYPES[key.kind]})
    return {"anyOf": [*kinds, LATER, *([{"type": "null"}] if key.null else [])]}


def _typed(word: str) -> object:
    return word == "true" if word in ("true", "false") else int(word) if word.isdigit() else word
