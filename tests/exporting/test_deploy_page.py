"""docs/deploy.md, followed word by word: what is exported and loaded again writes the captions of the row."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from blip2sweep.exporting import FORMATS
from tests.outside.page import follow, lines, plain, shown, write
from tests.outside.typed import workers_here

PAGE = Path(__file__).parents[2] / "docs" / "deploy.md"
EXPORT = re.compile(r"^export it: blip2sweep export (\w{12}) --to openvino tiny-openvino", re.MULTILINE)

pytestmark = pytest.mark.xdist_group("java")  # one worker, so one METEOR


@pytest.mark.thorough
def test_the_page_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("compressed_tensors")
    monkeypatch.chdir(write(PAGE, tmp_path))
    key = ""
    for command, text in shown(PAGE):
        with workers_here():
            said = "".join(follow(re.sub(r"\bKEY\b", key, x), tmp_path) for x in lines(command))
        for line in plain(text):
            assert line in plain(said), (command, line, said)
        if found := EXPORT.search(said):
            key = found[1]
    assert key


def test_its_table_has_every_format() -> None:
    rows = " ".join(re.findall(r"^\| (`[^|]+) \|", PAGE.read_text(), re.MULTILINE))
    assert set(re.findall(r"`(\w[\w-]+)`", rows)) == set(FORMATS)


def test_lines_are_short() -> None:
    prose = re.sub(r"^```.*?^```$", "", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert max(len(line) for line in prose.splitlines() if not line.startswith("|")) <= 106
