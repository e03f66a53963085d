"""docs/tasks.md: every command on a miniature runs with the embedded model and is scored, and every task has a section."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from blip2sweep.metrics import METRICS
from blip2sweep.results.scoring import Scorer
from blip2sweep.tasks import planned_task
from scripts.miniatures import write
from tests.in_process import jobs, run

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "tasks.md").read_text()
TASKS = {p.stem for p in (ROOT / "conf" / "task").glob("*.yaml")}
EMBEDDED = {"shapes_caption", "shapes_retrieval", "shapes_vqa"}
SAMPLES = 4

pytestmark = pytest.mark.xdist_group("java")  # one worker, so one METEOR


def commands() -> Iterator[str]:
    """The sweeps in the page's console blocks."""
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL):
        lines = block.replace("\\\n", " ").splitlines()
        yield from (line for line in lines if line.startswith("blip2sweep -m task="))


COMMANDS = list(commands())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("page")
    write(found / "data")
    return found


@pytest.mark.thorough
@pytest.mark.parametrize("command", COMMANDS, ids=[f"{i}-{shlex.split(c)[2]}" for i, c in enumerate(COMMANDS)])
def test_a_command_of_the_page_runs_on_its_miniature(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    here = [word for word in shlex.split(command, comments=True)[2:] if "spacy" not in word]  # CI has no spaCy
    made = jobs(*here, limit=SAMPLES)
    answered = run(made)
    for job in made:
        data = planned_task(job["task"])
        statistics = Scorer(data).statistics(answered[job["key"]][0])
        names = data.rules.scores(data)
        assert names
        values = {name: METRICS[name].value(statistics[METRICS[name].statistic]) for name in names}
        assert not math.isnan(values[data.main_metric])


def test_every_task_has_a_section_a_row_and_a_command() -> None:
    sections = re.findall(r"^### `?(\w+)`?$", PAGE, re.MULTILINE)
    assert set(sections) == TASKS - EMBEDDED
    rows = "\n".join(re.findall(r"^\|([^|]*)\|", PAGE.split("\n## ")[0], re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", rows)) == TASKS
    assert re.findall(r"\(#(\w+)\)", rows) == sections
    assert {name for command in COMMANDS for name in re.findall(r"task=(\w+)", command)} >= TASKS - EMBEDDED


@pytest.mark.parametrize("page", [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"], ids=lambda p: p.name)
def test_every_block_of_code_is_closed(page: Path) -> None:
    opened = None
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if fence := re.match(r" *```(.*)", line):
            assert opened is None or not fence[1], f"{page.name}:{number}: the block of line {opened} is still open"
            opened = number if opened is None else None
    assert opened is None, f"{page.name}:{opened}"


def test_lines_are_short() -> None:
    lines = [line for line in PAGE.splitlines() if not line.startswith(("|", "blip2sweep "))]
    assert max(map(len, lines)) <= 106
