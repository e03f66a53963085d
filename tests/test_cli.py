"""Help of the verbs, as typed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from blip2sweep.__main__ import VERBS, main
from tests.command_line import blip2sweep

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("words", [["plan", "--help"], ["plan", "-m", "quant.bits=2,4", "-h"]])
def test_plan_says_what_it_does(words: list[str], tmp_path: Path) -> None:
    ran = blip2sweep(*words, cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert ran.out.startswith("Usage: blip2sweep plan")
    assert "nothing is written, submitted or loaded" in ran.out
    assert ran.out.count("\n    blip2sweep plan ") == 2  # examples, a line each
    assert ran.out.index("blip2sweep plan +study") < ran.out.index("Overrides are those of the sweep itself")
    assert "Topics" not in ran.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    told = capsys.readouterr().out
    assert end.value.code == 0
    assert told.startswith(f"Usage: blip2sweep {verb}")
    assert len(told.splitlines()[2].strip()) > 20


def test_a_verb_that_is_stopped_has_its_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*rest: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("blip2sweep.running.status.print_status", stopped)
    with pytest.raises(SystemExit) as end:
        main(["status"])
    assert end.value.code == 130
    assert capsys.readouterr().err == ""


def test_a_plan_cuts_no_word(tmp_path: Path) -> None:
    """At 80 columns."""
    ran = blip2sweep(
        "plan", "quant.bits=2", "part=vit", "blocks=first", "layers=mlp", cwd=tmp_path, env={"COLUMNS": "80"}
    )
    assert ran.code == 0, ran.err
    assert "…" not in ran.out
    assert "vit:first:mlp=rtn2/" in "".join(ran.out.split())


@pytest.mark.parametrize("page", sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]), ids=lambda p: p.name)
def test_pages_name_verbs_that_there_are(page: Path) -> None:
    """In blocks of code, and between backticks."""
    text = page.read_text()
    blocks = [
        *re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL),
        *re.findall(r"^    .*", text, re.MULTILINE),
    ]
    named = {verb for block in blocks for verb in re.findall(r"^ *blip2sweep ([a-z]+)(?= |$)", block, re.MULTILINE)}
    assert named | {*re.findall(r"`blip2sweep ([a-z]+)(?= |`)", text)} <= {"plan", *VERBS}
