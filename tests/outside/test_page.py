"""docs/extending.md, followed word by word: its files are written, its commands run, and what it shows is what they print."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from blip2sweep.models.anatomy import anatomy
from blip2sweep.models.image_text.adapter import CHOICES, Adapter
from blip2sweep.models.image_text.chat import IMAGE, USER
from blip2sweep.wire.model_section import ModelSection
from tests.outside.site import PACKAGE, POINTS, TOYS
from tests.outside.typed import typed, workers_here

pytestmark = pytest.mark.thorough

PAGE = Path(__file__).parent.parent.parent / "docs" / "extending.md"
BLOCK = re.compile(r"(?:`(?P<file>[\w./-]+)`(?: \(continued\))?\n\n)?```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)  # fmt: skip
MODULES = {"toy_shift": "method", "scale": "step", "parrot": "backend"}


class Block(NamedTuple):
    """file: what it is written to; kind: python, yaml, toml, console or text, which is what the console before it shows."""

    file: str | None
    kind: str
    text: str


def blocks() -> list[Block]:
    return [Block(m["file"], m["kind"], m["text"]) for m in BLOCK.finditer(PAGE.read_text())]


def written() -> dict[str, str]:
    """{file: its text}, pieces put together."""
    found: dict[str, str] = {}
    for block in blocks():
        if block.file:
            found[block.file] = found.get(block.file, "") + block.text
    return found


def shown() -> Iterator[tuple[str, str]]:
    """(command, what the page shows of its output)."""
    told = blocks()
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


def write(folder: Path) -> Path:
    for name, text in written().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_the_page_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write(tmp_path))
    for command, text in shown():
        with workers_here():
            said = plain("".join(follow(line, tmp_path) for line in lines(command)))
        for line in plain(text):
            assert line in said, (command, line, said)


@pytest.mark.parametrize("path", [p for p in written() if p.endswith(".py")])
def test_its_modules_are_those_that_other_tests_use(path: str) -> None:
    group, name = Path(path).parent.name, Path(path).stem
    toy = MODULES.get(name) or {"tasks": "task", "architectures": "architecture"}[group]
    assert plain(written()[path]) == plain((TOYS / f"{toy}.py").read_text())


def test_its_package_has_the_entry_points_that_are_tested() -> None:
    text = written()["pyproject.toml"]
    for group, own in POINTS.items():
        assert f'[project.entry-points."blip2sweep.{group}"]\n' in text
        name, module = next(iter(own.items()))
        assert f'{name} = "{PACKAGE}.{module}"' in text


def test_its_model_of_the_adapter_can_be_planned() -> None:
    """The YAML has the form of a model, its blocks that reach nothing are unread, and its adapter's entries are known."""
    model = yaml.safe_load(written()["site/model/mine.yaml"])
    assert set(model) <= set(ModelSection.__annotations__)
    found = anatomy(model)
    assert [(p.n_blocks, p.stacks[0].unread) for p in found.parts.values()] == [(4, 1), (2, 0)]
    assert [len(p.folds) for p in found.parts.values()] == [1, 1]
    assert set(found.not_addressable) == {"connector"}
    assert Adapter.of(model).image_token == "<image>"
    assert (IMAGE in model["chat"], USER in model["chat"]) == (True, True)
    for entry in (*CHOICES, "image_token"):
        assert f"`adapter.{entry}`" in PAGE.read_text()


def test_lines_are_short() -> None:
    assert max(map(len, PAGE.read_text().splitlines())) <= 100
