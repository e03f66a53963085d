"""docs/your_data.md, followed word by word: its files are written, its commands run, and what it shows is what they print."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from blip2sweep.__main__ import main
from blip2sweep.tasks.jsonl import KINDS
from tests.outside.page import blocks, follow, lines, plain, shown, write
from tests.outside.typed import workers_here

PAGE = Path(__file__).parents[2] / "docs" / "your_data.md"

pytestmark = pytest.mark.xdist_group("java")  # one worker, so one METEOR


@pytest.mark.thorough
def test_the_page_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(write(PAGE, tmp_path))
    for command, text in shown(PAGE):
        with workers_here():
            said = (
                refused(command, capsys) if "error:" in text else "".join(follow(x, tmp_path) for x in lines(command))
            )
        for line in plain(text):
            assert line in plain(said), (command, line, said)
    assert (tmp_path / "outputs" / "sweeps" / "mine" / "report.html").stat().st_size > 1e6


def refused(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that is refused says."""
    with pytest.raises(SystemExit) as end:
        main(command.split()[1:])
    assert end.value.code == 2
    return capsys.readouterr().err


def test_its_table_has_every_kind() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)) == set(KINDS)


def test_its_files_are_json_lines_but_for_the_wrong_one() -> None:
    for block in blocks(PAGE):
        if block.kind == "json" and block.file != "wrong.jsonl":
            assert all(isinstance(json.loads(line), dict) for line in block.text.splitlines())


def test_lines_are_short() -> None:
    prose = re.sub(r"^```.*?^```$", "", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert max(len(line) for line in prose.splitlines() if not line.startswith("|")) <= 106
