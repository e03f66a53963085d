"""Writes docs/configuration.md and docs/schema.json from the reference of keys. A test checks that both are as written.

python scripts/write_reference.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from blip2sweep.commands.help import Config, composed, default_of, of_methods
from blip2sweep.config.json_schema import schema
from blip2sweep.config.keys import Key, groups, keys
from blip2sweep.config.means import CELL
from blip2sweep.config.topics import TOPICS

INTRO = """\
# Configuration: every key

This page is made by `scripts/write_reference.py` from what `blip2sweep --help` says. On a terminal
`blip2sweep --help` lists the topics, `--help TOPIC` is a section of this page, and `--help quant.bits`
says all that is known of one key. `blip2sweep --cfg job WORDS` prints the config of one cell.

## Completion and editors

Tab completes keys, choices, values, verbs, their flags and names of sweeps, in the program
`blip2sweep` (`python -m blip2sweep` is the same program; shells complete the first alone):

```
eval "$(blip2sweep -sc install=bash)"          # in ~/.bashrc
eval "$(blip2sweep -sc install=zsh)"           # in ~/.zshrc
blip2sweep -sc install=fish | source           # in ~/.config/fish/config.fish
```

`-sc uninstall=SHELL` takes it back. An editor that knows JSON schemas for YAML (the YAML language
server of VS Code, Neovim, Emacs; JetBrains' own) completes and checks files while they are written:

```
blip2sweep --schema > schema.json              # experiments, studies, a config of your own
blip2sweep --schema quant > quant.schema.json  # files of quant/; likewise for every group
```

and in the YAML file `# yaml-language-server: $schema=../schema.json`. [schema.json](schema.json) is
the first of them.
"""


def page() -> str:
    """docs/configuration.md."""
    config = composed(None)
    return "\n".join([INTRO, *(line for name in TOPICS for line in _topic(name, config))]).rstrip() + "\n"


def schema_text() -> str:
    """docs/schema.json."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def _topic(name: str, config: Config) -> Iterator[str]:
    topic, own = TOPICS[name], [key for key in keys().values() if key.topic == name]
    yield from (f"## {name}", "", f"{topic.title[0].upper()}{topic.title[1:]}.", "")
    if topic.text:
        yield from ("```", *topic.text, "```", "")
    if choices := groups().get(name):
        yield from (f"Choices: {', '.join(f'`{name}={choice}`' for choice in choices)}.", "")
    if own:
        yield from _table(("key", "default", "takes", "meaning"), ([*_cells(key, config)] for key in own))
        yield from _counts(own)
        yield from _methods(own)


def _cells(key: Key, config: Config) -> Iterator[str]:
    yield from (f"`{key.name}`", _code(default_of(key, config)), key.allowed, key.means.meaning)


def _code(text: str) -> str:
    return f"`{text}`" if len(text) < 40 else f"`{text[:38]}…`"


def _counts(own: Iterable[Key]) -> Iterator[str]:
    """Where the keys count that do not count as most do."""
    by_place: dict[str, list[str]] = {}
    for key in own:
        by_place.setdefault(key.means.counts, []).append(f"`{key.name}`")
    yield from (f"- {', '.join(names)}: {place}." for place, names in by_place.items() if place != CELL)
    yield from ([f"- All others: {CELL}.", ""] if CELL in by_place else [""])


def _methods(own: Iterable[Key]) -> Iterator[str]:
    rows = [[f"`{key.name}`", f"{what} {text}"] for key in own for what, text in of_methods(key).items()]
    if rows:
        yield from ("What a method has where nothing is set, and its widths:", "")
        yield from _table(("key", "by method"), rows)


def _table(head: tuple[str, ...], rows: Iterable[list[str]]) -> Iterator[str]:
    for row in ([*head], ["---"] * len(head), *rows):
        yield "| " + " | ".join(text.replace("|", "\\|") for text in row) + " |"
    yield ""


if __name__ == "__main__":
    (ROOT / "docs" / "configuration.md").write_text(page(), encoding="utf-8")
    (ROOT / "docs" / "schema.json").write_text(schema_text(), encoding="utf-8")
