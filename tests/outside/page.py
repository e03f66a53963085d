"""A page of docs/ that tests follow: its files are written, its commands run, and what it shows is what they print."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.outside.typed import typed

BLOCK = re.compile(r"(?:`(?P<file>[\w./-]+)`(?: \(continued\))?\n\n)?```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)  # fmt: skip


class Block(NamedTuple):
    """file: what it is written to; kind: python, yaml, toml, console or text, which is what the console before it shows."""

    file: str | None
    kind: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(m["file"], m["kind"], m["text"]) for m in BLOCK.finditer(page.read_text())]


def written(page: Path) -> dict[str, str]:
    """{file: its text}, pieces put together."""
    found: dict[str, str] = {}
    for block in blocks(page):
        if block.file:
            found[block.file] = found.get(block.file, "") + block.text
    return found


def shown(page: Path) -> Iterator[tuple[str, str]]:
    """(command, what the page shows of its output)."""
    told = blocks(page)
    for i, block in enumerate(told):
        if block.kind == "console":
            yield block.text, told[i + 1].text if i + 1 < len(told) and told[i + 1].kind == "text" else ""


def plain(text: str) -> list[str]:
    """Lines without the digits of keys and files, and without how wide columns are."""
    masked = re.sub(r"\b[0-9a-f]{12}\b", "…", text)
    lines = (re.sub(r"[━─┏┳┓┡╇┩└┴┘ ]+", " ", line).strip() for line in masked.splitlines())
    return [line for line in lines if line]


def lines(command: str) -> list[str]:
    """The commands of a console block. One may go on behind a backslash, or in quotes."""
    found: list[str] = []
    for line in command.replace("\\\n", "").splitlines():
        if found and found[-1].count("'") % 2:
            found[-1] += f"\n{line}"
        else:
            found.append(line)
    return found


def follow(command: str, folder: Path) -> str:
    """What it prints. Our own command is typed into this process; all others run in a shell."""
    words = shlex.split(command)
    if words[0] == "blip2sweep":
        return typed(words[1:])
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-ec", command], cwd=folder, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def write(page: Path, folder: Path) -> Path:
    for name, text in written(page).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder
