"""The kind of tests/toy/rules.py as an installed package would bring it, and its cells without a model."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from blip2sweep.config import standalone
from blip2sweep.config.compose import Composer
from blip2sweep.metrics import METRICS
from blip2sweep.metrics.statistics import add_metrics
from blip2sweep.planning.plan import Plan, PlannedJob, make_plan
from blip2sweep.results.ledger import Ledger
from blip2sweep.tasks.task import FORMATS, KINDS, task_of
from tests.composing import composer
from tests.toy import rules
from tests.toy.task import write

CONF = Path(__file__).parent / "toy" / "conf"
MODULE = "tests.toy.rules"


@pytest.fixture
def toy_rules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    composer()  # before another one takes Hydra's place in this process
    for table in (FORMATS, KINDS):
        monkeypatch.setitem(table, "toy_rules", MODULE)
    monkeypatch.setitem(rules.MODEL, "version", "1.0")
    add_metrics(task_of("toy_rules").metrics())
    rules.SCORED.clear()
    yield
    for metric in rules.metrics():
        METRICS.pop(metric.name, None)


def asked(folder: Path, *jobs: Sequence[str]) -> list[PlannedJob]:
    """Some lists of words, composed, on pictures beside the folder of results."""
    data = folder.parent / f"{folder.name}-data"
    if not data.exists():
        data.mkdir()
        write(data)
    own = [
        "task=toy_rules",
        f"task.data_dir={data}",
        "part=llm",
        "quant.bits=4",
        f"output_dir={folder}",
        "backend=dummy",
    ]
    return [PlannedJob(tuple(words), _composer().config((*own, *words))) for words in jobs or ([],)]


@functools.cache
def _composer() -> Composer:
    return standalone.composer(CONF)


def planned(folder: Path, *jobs: Sequence[str]) -> Plan:
    """Their plan against the ledger of the folder."""
    return make_plan(asked(folder, *jobs), Ledger(folder).refresh())
