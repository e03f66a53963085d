"""Cells in rounds of some images: the answers are those of one piece, and what cells share they share in rounds too."""

from __future__ import annotations

from typing import Any

import pytest

from blip2sweep.apply.patch import Patch
from blip2sweep.backends.backend import Answered
from blip2sweep.backends.shares import Joiner, round_of
from blip2sweep.backends.torch.backend import TorchBackend
from tests.in_process import jobs

IMAGES, STEPS = 24, ((0, 12), (12, 20), (20, 24))
# How cells of the recipe go: round by round, or in rounds that go over several of these segments at once.
GO = {"llm": STEPS, "vit": ((0, 12), (12, 20, 24)), "vit+llm": ((0, 12, 20), (20, 24))}


class Counted(TorchBackend):
    """applied: how often a recipe was put into the model, by cell."""

    def __init__(self) -> None:
        super().__init__({"device": "cpu", "threads": 1, "propagation": True})
        self.applied = 0

    def __call__(self, job: Any, batch_size: int | None = None) -> Answered:
        before = Patch.apply

        def counting(*args: Any, **more: Any) -> Any:
            self.applied += 1
            return before(*args, **more)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Patch, "apply", counting)
            return super().__call__(job, batch_size)


@pytest.fixture(scope="module")
def ran() -> dict[str, Any]:
    """The four cells: each in one piece, and in rounds after the baseline in one piece."""
    these = jobs("task=shapes_caption", "part=vit,llm,vit+llm", "quant.bits=3", limit=IMAGES)
    base, *others = these
    alone, rounds, joined = Counted(), Counted(), Joiner()
    alone.expect(these)
    rounds.expect([base, *(round_of(j, *step) for j in others for step in STEPS)])
    whole = {j["key"]: alone(j) for j in these}
    rounds(base)
    found = {}
    for job in others:
        before = rounds.applied
        pieces = [rounds(round_of(job, *steps)) for steps in GO[job["columns"]["part"]]]
        found[job["columns"]["recipe"].count("vit"), job["columns"]["recipe"].count("llm")] = (
            whole[job["key"]], joined.rounds(job, pieces), pieces, rounds.applied - before,
        )  # fmt: skip
    return {"cells": found, "states": rounds.state}


def test_the_answers_are_those_of_one_piece(ran: dict[str, Any]) -> None:
    for one, together, pieces, _ in ran["cells"].values():
        assert together.predictions == one.predictions
        assert together.layers_changed == one.layers_changed
        assert together.artifacts["propagation"] == one.artifacts["propagation"]
        assert sum(len(p.predictions.id) for p in pieces) == IMAGES
        assert together.cost["seconds"] == pytest.approx(sum(p.cost["seconds"] for p in pieces))
        assert together.cost["peak_memory_bytes"] == max(p.cost["peak_memory_bytes"] for p in pieces)
        assert one.cost.keys() - together.cost.keys() <= {"seconds_images"}  # the baseline has decoded them


def test_a_recipe_is_put_into_the_model_once(ran: dict[str, Any]) -> None:
    assert [n for *_, n in ran["cells"].values()] == [1, 1, 1]


def test_rounds_take_what_the_baseline_and_earlier_cells_computed(ran: dict[str, Any]) -> None:
    """The cell that leaves the vision model alone never runs it; of two cells with one vision model the first runs it, though
    their rounds are others."""
    hits = {name: [p.cost["hits_bridge"] for p in pieces] for name, (_, _, pieces, _) in ran["cells"].items()}
    assert hits[0, 1] == [12, 8, 4]
    assert (hits[1, 0], hits[1, 1]) == ([0, 0], [20, 4])


def test_pictures_are_decoded_once(ran: dict[str, Any]) -> None:
    (of_task,) = ran["states"].images.values()
    assert len(of_task) == 1
