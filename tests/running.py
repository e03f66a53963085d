"""Cells of a command run in this process, as a worker would run them."""

from __future__ import annotations

from typing import Any

from blip2sweep.recipe.chain import Prefixes
from blip2sweep.records import Predictions
from blip2sweep.sweep.runner import Runner
from tests.composing import plan


def jobs(*words: str, limit: int = 40) -> list[dict[str, Any]]:
    """The jobs of a command, in the order a pack has them."""
    cells = plan(*words, f"task.limit={limit}").cells.values()
    return sorted((c.job() for c in cells), key=Prefixes())


def run(these: list[dict[str, Any]], **settings: Any) -> dict[str, tuple[Predictions, dict[str, Any]]]:
    """{key: (predictions, what is told of the run)}."""
    runner = Runner({"device": "cpu", **settings})
    runner.expect(these)
    return {job["key"]: runner(job) for job in these}
