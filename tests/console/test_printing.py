"""Words that come out: nothing printed can rewrite a terminal, start a formula, or end in a UnicodeEncodeError."""

from __future__ import annotations

import ast
import csv
import io
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from blip2sweep.console import printing
from blip2sweep.console.printing import cell, defused, fused, joined, one_line, say, say_text, visible
from blip2sweep.reporting.table_text import Shown, csv_text, latex, markdown
from tests.command_line import blip2sweep

HOSTILE = "a\x1b[31mred\x1b]0;title\x07\x9b2J\u202egod\u2066\u200e\u2028b\r\x7f\u200b\ud83d"
TELLS = [
    "\\x1b[31m",
    "\\x07",
    "\\x9b",
    "\\u202e",
    "\\u2066",
    "\\u200e",
    "\\u2028",
    "\\x0d",
    "\\x7f",
    "\\u200b",
    "\\ud83d",
]
FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "'=1", "''@x", "=", "-x"]


def test_hidden_characters_become_visible() -> None:
    for tell in TELLS:
        assert tell in visible(HOSTILE)
        assert tell in joined(HOSTILE) or tell == "\\x0d"  # the end of a line
    assert not printing.HIDDEN.search(visible(HOSTILE))
    assert visible("a\n\tb ü 🐈‍⬛ نمی‌خواهم") == "a\n\tb ü 🐈‍⬛ نمی‌خواهم"
    assert one_line("a\nb\tc") == "a\\nb\\tc"
    assert joined(" two  blanks \n stay ") == "two  blanks stay"


def test_what_is_said_is_visible(capsys: pytest.CaptureFixture[str]) -> None:
    say(HOSTILE, "[red]a[/red] :warning:\nnot a line of its own")
    say_text("two\nlines" + HOSTILE, err=True)
    printing.console(err=True).print(f"[bold]x[/bold] :smile: {HOSTILE}", soft_wrap=True)
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert "[red]a[/red] :warning:\\nnot" in out
    assert "[bold]x[/bold] :smile:" in err
    for tell in TELLS:
        assert tell in out
        assert err.count(tell) == 2
    assert str(cell(HOSTILE)) == visible(HOSTILE)


PACKAGE = Path(printing.__file__).parents[1]
# Written whole, and run where this package is not.
ALONE = (
    "lmms/bridge.py",
    "exporting/engines/check_vision.py",
    "exporting/engines/run_engines.py",
    "exporting/ir/alone.py",
)
SPEAKS = (
    "console/printing.py",
    "results/looking.py",
    "results/scoring_service.py",
    "models/checkpoints/child.py",
    *ALONE,
)


def test_only_one_room_prints() -> None:
    """So that no text of others reaches a terminal as it is. What processes answer to those that started them is JSON."""
    for path in sorted(PACKAGE.rglob("*.py")):
        calls = [n.func for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        names = {ast.unparse(f) for f in calls}
        if path.relative_to(PACKAGE).as_posix() not in SPEAKS:
            assert not names & {"print", "typer.echo", "Console", "sys.stdout.write", "sys.stderr.write"}, path


# ---- tables


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_a_text(text: str) -> None:
    assert defused(text).startswith("'")
    assert fused(defused(text)) == text


@pytest.mark.parametrize("text", ["-0.5", "+1e-3", "vit:all:all=rtn4/channel", "a=b", "'quoted'", ""])
def test_what_is_no_formula_stays(text: str) -> None:
    assert defused(text) == text
    assert fused(text) == text


def test_a_table_as_csv_keeps_numbers_and_defuses_texts() -> None:
    table = pd.DataFrame(
        {
            "=head": ["=1+1", None],
            "x": [-0.1 - 0.2, float("nan")],
            "mixed": [-1.5, "-x"],
            "e": ["a\x1b[0m\nb", {"k": 1}],
        }
    )
    rows = list(csv.reader(io.StringIO(csv_text(table))))
    assert rows[0] == ["'=head", "x", "mixed", "e"]
    assert rows[1] == ["'=1+1", repr(-0.1 - 0.2), "-1.5", "a\\x1b[0m\\nb"]
    assert rows[2] == ["", "", "'-x", "{'k': 1}"]


def test_markdown_and_latex_stay_tables() -> None:
    short = pd.DataFrame({"error": ["a|b", "a\\|b", "two\nlines", "\x1b[0m"], "n": [1, 2, 3, 4]})
    lines = markdown(Shown(short)).splitlines()
    assert len(lines) == 6
    assert lines[2] == "| a\\|b | 1 |"
    assert lines[3] == "| a&#92;\\|b | 2 |"
    assert all(line.endswith(r"\\") for line in latex(Shown(short)).splitlines()[4:8])


# ---- terminals

PRINTS = """
import sys
from blip2sweep.console import printing
printing.prepare()
printing.say("\u22120.5\u2026\u20130.1 \u00fc \u202e", err="err" in sys.argv)
from rich.table import Table
table = Table(printing.shown("a\u2026"), title="t")
table.add_row(printing.cell("\u2212\u2026\u00fc"))
printing.console().print(table)
import warnings; warnings.warn("bad \u202e\\nthing")
raise RuntimeError("\u2212 \x1b[31m")
"""


@pytest.mark.parametrize(
    "env",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C"},
        {"LANG": "C"},
        {"LC_ALL": "POSIX"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
)
def test_a_terminal_in_ascii_gets_ascii(env: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", PRINTS], capture_output=True, env={"PATH": "/usr/bin:/bin", **env})
    out, err = done.stdout.decode("latin-1"), done.stderr.decode("latin-1")
    assert done.returncode == 1
    assert "RuntimeError: - \\x1b[31m" in err
    assert "warning: bad \\u202e thing" in err
    assert "UnicodeEncodeError" not in err
    assert out.startswith("-0.5...-0.1 ")
    assert out.isascii() or "latin" in env.get("PYTHONIOENCODING", "")
    drawn = [line for line in out.splitlines() if line and line[0] in "+|"]
    assert len(drawn) >= 3
    assert len({len(line) for line in drawn}) == 1  # replaced before widths were counted


def test_errors_of_a_verb_are_visible(tmp_path: Path) -> None:
    ran = blip2sweep(
        "status", "a\x1b[31m\u202eb", "--output-dir", "ü  −", cwd=tmp_path, env={"PYTHONIOENCODING": "ascii"}
    )
    assert ran.code == 2
    assert ran.err.startswith("error: \\xfc  -: no sweep here")
    assert blip2sweep("plan", "--nosuch\x1b[31m", cwd=tmp_path).err.count("\\x1b[31m") == 1
