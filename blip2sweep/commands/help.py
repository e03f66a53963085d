"""`blip2sweep --help [TOPIC | KEY | GROUP=CHOICE | VERB …]`. It is answered before Hydra reads the words."""

from __future__ import annotations

import itertools
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from blip2sweep.compression.quantize import METHODS
from blip2sweep.config.keys import ANY, LAUNCHER, Key, choice_text, groups, keys, launcher_defaults
from blip2sweep.config.standalone import composer
from blip2sweep.config.topics import ALIASES, TOPICS
from blip2sweep.console.quoting import yaml_text
from blip2sweep.errors import UserError, nearest
from blip2sweep.version import VERSION

OPEN = {"per_part.": "quant", "rules.": "quant"}  # whose entries are options of a section
EXAMPLES = """
  blip2sweep                                             one cell of the embedded default
  blip2sweep -m quant.bits=2,4,8 part=vision,language    a sweep: lists multiply
  blip2sweep plan quant.bits=2,4,8 part=vision,language  what it would do; nothing is run
  blip2sweep -m +study=part_wise model=blip2-opt-2.7b task=coco_caption hydra/launcher=slurm
"""
MOST = 14  # characters of a default in a table
Config = Mapping[str, object]


def overview(verbs: Sequence[str]) -> str:
    """The first page: what may be asked for."""
    listed = textwrap.fill(", ".join(verbs), _width(), initial_indent="  ", subsequent_indent="  ")
    topics = "\n".join(f"  {name:<12} {topic.title}" for name, topic in TOPICS.items())
    return (
        f"blip2sweep {VERSION}: find out where a vision-language model breaks when it is compressed.\n{EXAMPLES}\n"
        f"Topics, as in `blip2sweep --help quant`. A key is one too: --help quant.bits. So is a choice: --help quant=gptq\n"
        f"{topics}\n\nVerbs, each with a --help of its own; `blip2sweep --help verbs` says what each does\n{listed}"
    )


def told(word: str, config_dir: Path | None = None) -> str:
    """The page of a word. Raises UserError for a word that is nothing here."""
    name, given, choice = word.lstrip("+~-").partition("=")
    name = ALIASES.get(name, name.rstrip("."))
    if given and (known := _known(config_dir).get(name)):
        return _chosen(name, choice, known, config_dir)
    if name in TOPICS:
        return _topic(name, config_dir)
    if found := _meant(name):
        config = composed(config_dir)
        return "\n\n".join(_key(key, config) for key in found)
    if chosen := _choices(name, config_dir):
        return "\n\n".join(chosen)
    if column := _column(name):
        return column
    close = nearest(name, {*TOPICS, *keys()}).partition("? ")
    hint = f"{close[0]}? " if close[1] else ""
    raise UserError(f"--help {word}: no topic, key, choice or verb; {hint}right: blip2sweep --help, which lists topics")


def _meant(name: str) -> list[Key]:
    """The keys that a word means: by its whole name, by its last words, or as an entry of a section that the user fills."""
    known = keys()
    if name in known:
        return [known[name]]
    if found := [key for key in known.values() if key.name.endswith(f".{name}")]:
        return found
    section = next((section for start, section in OPEN.items() if name.startswith(start)), None)
    option = [k for k in known.values() if section and k.name == f"{section}.{name.split('.', 2)[-1]}"]
    above = next((known[n] for n in _above(name) if n in known and known[n].kind in ("mapping", "any")), None)
    return [above, *option] if above else []


def _above(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


# ---- one page each


def _topic(name: str, config_dir: Path | None) -> str:
    topic, own = TOPICS[name], [key for key in keys().values() if key.topic == name]
    choices = _known(config_dir).get(name, [])
    lines = [topic.title, *(f"  {line}" for line in topic.text)]
    lines += ["", *textwrap.wrap(f"{name}={', '.join(choices)}", _width(), subsequent_indent="  ")] if choices else []
    if own:
        config, start = composed(config_dir), _start(topic.section, own)
        rows = [(f"{start}…" if start else "key", "default", "takes", "")]
        rows += [
            (k.name.removeprefix(start), _cut(default_of(k, config)), _short(k, config), k.means.meaning) for k in own
        ]
        lines += ["", *_columns(rows), "", f"more of one: blip2sweep --help {own[0].name}"]
    return "\n".join(lines)


def _start(section: str, own: Sequence[Key]) -> str:
    """What the names of all keys of a topic begin with, up to a dot."""
    start = f"{section}." if section else LAUNCHER
    return start if all(key.name.startswith(start) for key in own) else ""


def _cut(text: str) -> str:
    """A default, cut to what a column holds."""
    return text if len(text) <= MOST else f"{text[: MOST - 1]}…"


def _short(key: Key, config: Config) -> str:
    """What it takes, without the null that is its default."""
    return key.allowed.removesuffix(", null") if default_of(key, config) == "null" else key.allowed


def _columns(rows: Sequence[tuple[str, str, str, str]]) -> Iterator[str]:
    """A table whose last two columns share what is left of the width, and wrap."""
    first, second = (max(len(row[i]) for row in rows) + 2 for i in (0, 1))
    third = min(max(len(row[2]) for row in rows) + 2, (_width() - first - second) * 2 // 5)
    widths = (first, second, third, _width() - first - second - third)
    for row in rows:
        cells = [textwrap.wrap(text, width - 2) or [""] for text, width in zip(row, widths, strict=True)]
        for line in itertools.zip_longest(*cells, fillvalue=""):
            yield "".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()


def _width() -> int:
    return min(120, max(80, shutil.get_terminal_size((100, 24)).columns))


def _key(key: Key, config: Config) -> str:
    told = {
        "type": "" if key.kind == ANY else key.kind,
        "values": key.allowed,
        "default": default_of(key, config),
        **of_methods(key),
        "counts": key.means.counts,
        "more": f"blip2sweep --help {key.topic}",
    }
    return "\n".join([f"{key.name}: {key.means.meaning}", *_entries(told)])


def _entries(told: Mapping[str, str]) -> Iterator[str]:
    """A line for each text, behind what it says, wrapped; none for an empty one."""
    for what, text in ((what, text) for what, text in told.items() if text):
        yield from textwrap.wrap(f"{what:<9} {text}", _width(), initial_indent="  ", subsequent_indent=" " * 12)


def _known(config_dir: Path | None) -> dict[str, list[str]]:
    """{group: its choices}, the user's own among them."""
    return groups(*([config_dir] if config_dir else []))


def _chosen(group: str, choice: str, known: Sequence[str], config_dir: Path | None) -> str:
    text = choice_text(group, choice, config_dir) if choice in known else None
    if text is None:
        raise UserError(f"--help {group}={choice}: no such {group}; {nearest(choice, known)}")
    return _choice(group, choice, text)


def _choice(group: str, name: str, text: str) -> str:
    return f"{group}={name}\n\n" + textwrap.indent(text.rstrip(), "  ")


def _choices(name: str, config_dir: Path | None) -> list[str]:
    """The pages of the choices of this name, of any group."""
    known = _known(config_dir)
    texts = {group: choice_text(group, name, config_dir) for group, names in known.items() if name in names}
    return [_choice(group, name, text) for group, text in texts.items() if text is not None]


def _column(name: str) -> str | None:
    """The line of the data dictionary about a column of a table; None where there is none of this name."""
    from blip2sweep.results.schema import column_of

    found = column_of(name)
    if found is None:
        return None
    of = f" ({found.name})" if found.name != name else ""
    told = {"means": found.meaning, "unit": found.unit, "null": found.null, "more": "docs/columns.md"}
    return "\n".join([f"{name}{of}: a column of tables", *_entries(told)])


# ---- what stands elsewhere


def composed(config_dir: Path | None) -> Config:
    """The composed default, and that of both launchers."""
    return {**composer(config_dir).config(()), **launcher_defaults()}


def default_of(key: Key, config: Config) -> str:
    """The default of a key in a composed config, in one line."""
    value: object = config
    for part in [key.name] if key.name in config else key.name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, Mapping):
        return "{…}" if value else "{}"
    if isinstance(value, list):
        return "[…]" if value else "[]"
    return str(yaml_text(value)).removesuffix("\n").removesuffix("\n...")


def of_methods(key: Key) -> dict[str, str]:
    """For options of quantization that are null by default: what each method has in its place."""
    section, _, option = key.name.partition(".")
    if section != "quant":
        return {}
    if option == "bits":
        told = {m.name: _widths(m.bits) for m in METHODS.values()}
    elif option == "strategy":
        told = {m.name: m.strategies[0] for m in METHODS.values()}
    else:
        told = {m.name: yaml_text(m.options[option]).split("\n")[0] for m in METHODS.values() if option in m.options}
    by_text: dict[str, list[str]] = {}
    for method, text in told.items():
        by_text.setdefault(text, []).append(method)
    word = "widths" if option == "bits" else "null is"
    return {word: "; ".join(f"{text} ({', '.join(names)})" for text, names in by_text.items())} if told else {}


def _widths(bits: Sequence[int]) -> str:
    """Widths in ascending order as runs: 1-8,16."""
    runs = [[b for _, b in run] for _, run in itertools.groupby(enumerate(bits), key=lambda pair: pair[1] - pair[0])]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
