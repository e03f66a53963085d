"""docs/extending.md, followed word by word: its files are written, its commands run, and what it shows is what they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from blip2sweep.cache import disk as cache
from tests.outside.site import PACKAGE, POINTS, TOYS

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


def follow(command: str, folder: Path) -> str:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("BLIP2SWEEP_", "HYDRA_"))}
    env |= {"PATH": f"{Path(sys.executable).parent}:{env['PATH']}", "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    env |= {k: os.environ[k] for k in (cache.USER,) if k in os.environ}
    done = subprocess.run(["bash", "-ec", command], cwd=folder, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def write(folder: Path) -> Path:
    for name, text in written().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_the_page_does_what_it_says(tmp_path: Path) -> None:
    write(tmp_path)
    for command, text in shown():
        said = plain(follow(command, tmp_path))
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


def test_lines_are_short() -> None:
    assert max(map(len, PAGE.read_text().splitlines())) <= 100
