"""Any number of stages before the language model's, with blocks or without: what cells share between them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from blip2sweep.backends.torch.batching import Batches, Clock, Run
from blip2sweep.backends.torch.encode import encode
from blip2sweep.backends.torch.sharing import AnswerCache, Shared
from blip2sweep.cache.tensors import Memo
from blip2sweep.models.architecture import Stage
from blip2sweep.models.images import Features
from blip2sweep.models.ragged import Rows
from blip2sweep.recipe.chain import Chain, chain_of
from blip2sweep.tasks.sample import Sample, TaskData

CPU = torch.device("cpu")
STAGES = (
    Stage("eye", ("eye",), ("eye.blocks",), by_block=True),
    Stage("pool", ("pool",), ("pool.blocks",)),
    Stage("neck", ("neck",), ("neck.blocks",), by_block=True),
    Stage("tongue", ("tongue",), ("tongue.blocks",)),
)


class Whole:
    """Adds up the strips of a picture, and what the cell's recipe says."""

    def __init__(self, name: str, recipe: dict[str, tuple[str, ...]], ran: list[str]) -> None:
        self.name, self.recipe, self.ran = name, recipe.get(name, ("", "")), ran

    def run(self, rows: Rows) -> Rows:
        self.ran += [self.name] * len(rows)
        return rows.mapped(lambda x: 2 * x + len(self.recipe[0]))


class Blocks(Whole):
    """Two blocks, each of which adds what the recipe says of it."""

    n_blocks = 2

    def run(self, rows: Rows) -> Rows:
        return self.leave(self.blocks(self.enter(rows), 0, 2))

    def enter(self, rows: Rows) -> Rows:
        return rows.mapped(lambda x: x + 1)

    def blocks(self, state: Rows, start: int, stop: int) -> Rows:
        for block in range(start, stop):
            self.ran += [f"{self.name}{block}"] * len(state)
            state = state.mapped(lambda x, own=self.recipe[block]: x * 3 + len(own))
        return state

    def leave(self, state: Rows) -> Rows:
        return state.mapped(torch.neg)


@pytest.fixture
def pictures() -> Features:
    return Features(tuple(range(5)), Rows(torch.arange(14.0)[:, None], (3, 1, 4, 2, 4)))


def cell(recipe: dict[str, tuple[str, ...]], pictures: Features, shared: Shared | None) -> tuple[Features, list[str]]:
    """(what the tongue gets, what ran for it)."""
    ran: list[str] = []
    stages = (Blocks("eye", recipe, ran), Whole("pool", recipe, ran), Blocks("neck", recipe, ran))
    loaded: Any = SimpleNamespace(images=stages, device=CPU)
    samples = tuple(Sample(i, i, Path(str(i)), None, ()) for i in pictures.ids)
    run = Run(loaded, Batches(2), Batches(2), Clock(CPU))
    return encode(run, TaskData("t", "caption", samples, ""), pictures, shared), ran


PLAIN: dict[str, tuple[str, ...]] = {"eye": ("", ""), "pool": ("",), "neck": ("", ""), "tongue": ("",)}
CHANGES: list[dict[str, tuple[str, ...]]] = [
    {}, {"neck": ("", "q")}, {"neck": ("q", "q")}, {"pool": ("qq",)}, {"eye": ("", "qqq")}, {"tongue": ("q",)},
]  # fmt: skip
RECIPES = [{**PLAIN, **change} for change in CHANGES]
RUNS = [  # of each cell, what it has to compute when the ones before it are known
    ["eye0", "eye1", "pool", "neck0", "neck1"], ["neck1"], ["neck0", "neck1"], ["pool", "neck0", "neck1"],
    ["eye1", "pool", "neck0", "neck1"], [],
]  # fmt: skip


def test_each_cell_goes_on_from_where_it_leaves_the_others(pictures: Features) -> None:
    chains = [chain_of("start", recipe, STAGES) for recipe in RECIPES]
    memo, answered = Memo(CPU, 0, 10**6), AnswerCache[Any]()
    memo.expect([c.keys for c in chains])
    for step, (recipe, chain, expected) in enumerate(zip(RECIPES, chains, RUNS, strict=True)):
        memo.advance(step)
        shared = Shared(memo, chain, "neck", {}, answered)
        alone, _ = cell(recipe, pictures, None)
        found, ran = cell(recipe, pictures, shared)
        assert found.rows is not None
        assert alone.rows is not None
        assert (found.after, found.ids, found.rows.lengths) == ("neck", pictures.ids, (3, 1, 4, 2, 4))
        assert torch.equal(found.rows.values, alone.rows.values)
        assert ran == [name for piece in (2, 2, 1) for name in expected for _ in range(piece)]
        skipped = {f"{name}_blocks": 2 - sum(r.startswith(name) for r in expected) for name in ("eye", "neck")}
        images = 0 if expected else 5
        assert shared.hits == {**skipped, "pool": float("pool" not in expected), "neck": images}


def test_features_of_a_stage_in_the_middle_may_be_given(pictures: Features) -> None:
    whole, _ = cell(PLAIN, pictures, None)
    assert pictures.rows is not None
    given = Features(pictures.ids, Blocks("eye", PLAIN, []).run(pictures.rows), "eye")
    found, ran = cell(PLAIN, given, None)
    assert found.rows is not None
    assert whole.rows is not None
    assert torch.equal(found.rows.values, whole.rows.values)
    assert "eye0" not in ran


def test_points_are_kept_between_blocks_and_behind_stages_without() -> None:
    chain = chain_of("start", PLAIN, STAGES)
    assert [(p.stage, p.block) for p in chain.points] == [(0, 0), (0, 1), (0, 2), (2, 0), (2, 1), (2, 2), (3, 0)]
    assert len(set(chain.keys)) == len(chain.keys)
    unnamed = chain_of("start", {}, STAGES)  # stages that no part names have no blocks to stop at
    assert [(p.stage, p.block) for p in unnamed.points] == [(0, 0), (2, 0), (3, 0)]


def test_a_key_follows_from_what_stands_before_it() -> None:
    base = {"eye": ("", "a"), "pool": ("b",), "neck": ("", "c"), "tongue": ("d",)}

    def differing(change: dict[str, tuple[str, ...]]) -> tuple[int, bool]:
        """(the first point whose key is another, whether the language model's is)."""
        one, other = (chain_of("start", r, STAGES) for r in (base, {**base, **change}))
        first = next((i for i, (a, b) in enumerate(zip(one.keys, other.keys, strict=True)) if a != b), -1)
        assert all(a != b for a, b in zip(one.keys[first:], other.keys[first:], strict=True)) or first < 0
        return first, one.language != other.language

    assert differing({"eye": ("x", "a")}) == (1, False)
    assert differing({"eye": ("", "x")}) == (2, False)
    assert differing({"pool": ("x",)}) == (3, False)
    assert differing({"neck": ("x", "c")}) == (4, False)
    assert differing({"neck": ("", "x")}) == (5, False)
    assert differing({"tongue": ("x",)}) == (-1, True)


def test_the_order_of_entries_decides_nothing() -> None:
    entries = {"eye": ("", "a"), "pool": ("b",), "neck": ("", "c"), "tongue": ("d",)}
    turned: Chain = chain_of("start", dict(reversed(entries.items())), STAGES)
    assert turned == chain_of("start", entries, STAGES)
