"""docs/compression.md and docs/rsicd.md: their commands run, and what is shown is what they print."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from blip2sweep.compression.recover import METHODS as RECOVERIES
from blip2sweep.compression.sparsity import METHODS as SPARSITIES
from blip2sweep.compression.step import STEPS
from tests.outside.page import follow, lines, plain, shown
from tests.outside.typed import workers_here

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "compression.md"

pytestmark = pytest.mark.xdist_group("java")  # one worker, so one METEOR


@pytest.mark.thorough
@pytest.mark.parametrize("page", [PAGE, DOCS / "rsicd.md"], ids=lambda p: p.stem)
def test_the_page_does_what_it_says(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft")
    monkeypatch.chdir(tmp_path)
    commands = list(shown(page))
    assert commands
    for command, text in commands:
        with workers_here():
            said = "".join(follow(x, tmp_path) for x in lines(command))
        for line in plain(text):
            assert line in plain(said), (command, line, said)


def test_every_step_and_method_has_its_paragraph() -> None:
    text = PAGE.read_text()
    keys = re.findall(r"^\| \d \| \[[^|]+ \| `(\w+)` \|", text, re.MULTILINE)
    assert keys == ["quant" if s == "quantize" else s for s in STEPS]
    for key, names in (("sparsity", SPARSITIES), ("recover", RECOVERIES)):
        assert all(f"`{key}={name}`" in text for name in names)


def test_lines_are_short() -> None:
    prose = re.sub(r"^```.*?^```$", "", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert max(len(line) for line in prose.splitlines() if not line.startswith("|")) <= 106
