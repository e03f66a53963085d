"""Configs without the command line: the same composer the launcher uses."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from blip2sweep.config import standalone
from blip2sweep.config.compose import Composer
from blip2sweep.config.grid import expand
from blip2sweep.config.overrides import normalise
from blip2sweep.models.architecture import Stage
from blip2sweep.planning.plan import Plan, PlannedJob, make_plan
from blip2sweep.recipe import Recipe
from blip2sweep.recipe.chain import Chain, block_entries, by_stage, chain_of
from blip2sweep.results.ledger import Ledger


@functools.cache
def composer() -> Composer:
    """One for all tests of a process: what it has composed it remembers."""
    return standalone.composer()


def jobs(*words: str) -> list[PlannedJob]:
    """The jobs of a command's overrides."""
    made, arguments = composer(), [normalise(w) for w in words]
    made.check(arguments)
    return [PlannedJob(j, made.config(j)) for j in expand(arguments, made)]


def plan(*words: str, output_dir: Path = Path("/nonexistent")) -> Plan:
    """The plan of a command's overrides against a ledger, empty by default."""
    return make_plan(jobs(*words), Ledger(output_dir).refresh())


def recipes(*words: str) -> list[str]:
    """The `recipe` column of each job, in order."""
    made = plan(*words)
    return [made.cells[k].columns()["recipe"] if k else made.reasons[i] for i, k in enumerate(made.keys)]


def chain(start: object, recipe: Recipe, stages: Sequence[Stage]) -> Chain:
    """The chain of a whole recipe. start: everything else that determines the features, as JSON."""
    return chain_of(start, by_stage((part.part, block_entries(part)) for part in recipe.parts.values()), stages)
