"""Cells go side by side: short rounds are asked for together, and each cell has the answer that it has alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from blip2sweep.backends.backend import Answered
from blip2sweep.machine import stopping
from blip2sweep.machine.stopping import Stopped
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.workers import side_by_side
from blip2sweep.workers.side_by_side import Companions, Later, Rounds


def cell(name: str, kind: str | None = "k", long: Sequence[int] = (), model: str = "m") -> Any:
    """A cell. kind: what it has in common with others. long: its rounds that fill a batch."""
    return {"key": name, "kind": kind, "long": [*long], "model": {"name": model}}


def ask_of(job: Any, i: int) -> Any:
    return {**job, "round": i}


class Fake:
    """A back end and a worker's way with cells. needs: {cell: its rounds}. asked: rounds in order; at once: what was said to
    come. wrong: {round: what it raises, once}."""

    def __init__(self, needs: dict[str, int], wrong: dict[str, BaseException] | None = None) -> None:
        self.needs, self.wrong = needs, wrong or {}
        self.asked, self.told, self.begun = list[str](), list[list[str]](), list[str]()
        self.companions = Companions(self.rounds)
        self.model: Any = None  # that is loaded
        self.then = dict[str, Callable[[], object]]()  # {round: what happens after it}

    def rounds(self, job: Any) -> Rounds:
        self.begun.append(job["key"])
        known = []
        for i in range(self.needs[job["key"]]):
            found = yield ask_of(job, i)
            known += found.provenance["said"]  # type: ignore[typeddict-item]
        return answer(*known)

    def __call__(self, job: Any) -> Answered:
        name = f"{job['key']}{job['round']}"
        if name in self.wrong:
            raise self.wrong.pop(name)
        self.asked.append(name)
        self.model = job["model"]
        self.then.get(name, lambda: None)()
        return answer(name)

    # ---- of a back end

    def alike(self, job: Any) -> str | None:
        return job["kind"] if job["model"] == self.model else None

    def fills(self, job: Any) -> bool:
        self.model = job["model"]
        return job["round"] in job["long"]

    def comes(self, jobs: Sequence[Any]) -> None:
        self.told += [[f"{j['key']}{j['round']}" for j in jobs]] if jobs else []

    # ---- turns

    def run(self, *cells: Any, **may: bool) -> dict[str, list[str] | BaseException]:
        """{cell: its rounds, or what was raised in its turn}. may: cells that may not begin before it."""
        found: dict[str, list[str] | BaseException] = {}
        for i, job in enumerate(cells):
            later = Later(cells[i + 1 :], lambda other: may.get(other["key"], True))
            try:
                answered = self.companions(job, self, self, later)  # type: ignore[arg-type]
                found[job["key"]] = answered.provenance["said"]  # type: ignore[typeddict-item]
            except BaseException as error:
                found[job["key"]] = error
        return found


def answer(*said: str) -> Answered:
    return Answered(Predictions.of([]), {}, provenance={"said": [*said]})  # type: ignore[typeddict-unknown-key]


def alone(needs: dict[str, int]) -> dict[str, list[str]]:
    return {name: [f"{name}{i}" for i in range(n)] for name, n in needs.items()}


def test_each_cell_has_its_own_rounds_and_those_of_others_come_with_them() -> None:
    needs = {"a": 3, "b": 1, "c": 4, "d": 2}
    fake = Fake(needs)
    assert fake.run(*map(cell, needs)) == alone(needs)
    assert fake.told[:3] == [["a0", "b0", "c0", "d0"], ["a1", "c1", "d1"], ["a2", "c2"]]
    assert fake.asked == ["a0", "b0", "c0", "d0", "a1", "c1", "d1", "a2", "c2", "c3"]
    assert sorted(fake.begun) == sorted(needs)  # each once


def test_a_cell_that_is_answered_waits_for_nobody() -> None:
    fake = Fake({"a": 1, "b": 2})
    own = fake.companions(cell("a"), fake, fake, Later([cell("b")]))  # type: ignore[arg-type]
    assert own.provenance == {"said": ["a0"]}
    assert (fake.told, fake.asked) == ([["a0", "b0"]], ["a0"])


@pytest.mark.parametrize(
    "other", [cell("b", kind="other"), cell("b", kind=None), cell("b", long=[0, 1])], ids=["unlike", "alone", "long"]
)
def test_some_cells_are_not_taken_along(other: Any) -> None:
    fake = Fake({"a": 2, "b": 2})
    assert fake.run(cell("a"), other) == alone(fake.needs)
    assert (fake.told, fake.asked) == ([], ["a0", "a1", "b0", "b1"])


def test_a_long_round_is_asked_for_by_itself() -> None:
    fake = Fake({"a": 3, "b": 3})
    assert fake.run(cell("a", long=[1]), cell("b", long=[2])) == alone(fake.needs)
    assert fake.asked == ["a0", "b0", "a1", "a2", "b1", "b2"]
    assert fake.told == [["a0", "b0"], ["a2", "b1"]]


def test_a_cell_that_may_not_begin_waits_for_its_turn() -> None:
    fake = Fake({"a": 2, "b": 1, "c": 1})
    assert fake.run(*map(cell, "abc"), b=False) == alone(fake.needs)
    assert fake.asked == ["a0", "c0", "a1", "b0"]


def test_only_so_many_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "MOST", 2)
    fake = Fake({"a": 1, "b": 1, "c": 1})
    assert fake.run(*map(cell, "abc")) == alone(fake.needs)
    assert fake.told == [["a0", "b0"], ["b0", "c0"]]


def test_no_further_cells_are_begun_where_many_have_long_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as those that go on from rounds that were kept: each would be read, and judged, in the turn of the first."""
    monkeypatch.setattr(side_by_side, "MOST", 3)
    fake = Fake({"a": 1, "b": 1, "c": 1, "d": 1})
    fake.companions(cell("a"), fake, fake, Later([cell(x, long=[0]) for x in "bcd"]))  # type: ignore[arg-type]
    assert fake.begun == ["a", "b", "c"]


def test_a_cell_that_somebody_else_has_by_now_is_left_where_it_is() -> None:
    fake, free = Fake({"a": 3, "b": 3}), {"b"}
    fake.then["a1"] = free.clear
    later = Later([cell("b")], lambda job: job["key"] in free)
    fake.companions(cell("a"), fake, fake, later)  # type: ignore[arg-type]
    assert fake.asked == ["a0", "b0", "a1", "b1", "a2"]
    assert fake.companions.drop("b")
    assert not fake.companions.drop("b")


def test_cells_of_the_next_model_go_side_by_side_too() -> None:
    """Although nobody knew what they have in common while the first one was loaded."""
    fake = Fake({"a": 1, "b": 1, "c": 1, "d": 1})
    assert fake.run(*map(cell, "ab"), *(cell(x, model="n") for x in "cd")) == alone(fake.needs)
    assert fake.told == [["a0", "b0"], ["c0", "d0"]]


def test_others_get_so_many_seconds_of_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "LONGEST", -1.0)
    fake = Fake({"a": 2, "b": 1})
    assert fake.run(*map(cell, "ab")) == alone(fake.needs)
    assert fake.asked == ["a0", "a1", "b0"]


def test_without_a_back_end_that_can_each_is_alone() -> None:
    fake = Fake({"a": 2, "b": 1})
    for job in (cell("a"), cell("b")):
        fake.companions(job, fake, None, Later([cell("b")]))
    assert fake.asked == ["a0", "a1", "b0"]


# ---- what goes wrong


def test_what_goes_wrong_with_another_cell_its_own_turn_tells() -> None:
    """Here it goes well the second time."""
    fake = Fake({"a": 2, "b": 2, "c": 1}, {"b0": RuntimeError("no")})
    assert fake.run(*map(cell, "abc")) == alone(fake.needs)
    assert fake.asked == ["a0", "c0", "a1", "b0", "b1"]
    assert fake.begun.count("b") == 2


def test_a_cell_that_fails_leaves_the_others_where_they_are() -> None:
    fake = Fake({"a": 2, "b": 2}, {"a1": RuntimeError("no")})
    found = fake.run(*map(cell, "ab"))
    assert isinstance(found["a"], RuntimeError)
    assert found["b"] == ["b0", "b1"]
    assert fake.asked == ["a0", "b0", "b1"]


def test_after_lack_of_memory_each_is_alone() -> None:
    fake = Fake({"a": 2, "b": 2, "c": 2}, {"b0": MemoryError()})
    assert fake.run(*map(cell, "abc")) == alone(fake.needs)
    assert fake.told == [["a0", "b0", "c0"]]


def test_a_worker_that_has_to_end_goes_on_with_no_other_cell() -> None:
    fake = Fake({"a": 2, "b": 1})
    with stopping.told_by(lambda: True):
        fake.companions(cell("a"), fake, fake, Later([cell("b")]))  # type: ignore[arg-type]
    assert (fake.asked, fake.begun) == (["a0", "a1"], ["a"])


def test_a_worker_that_is_asked_to_end_while_others_run_begins_no_further_round() -> None:
    """Which may be the rest of all images, for which no time is left."""
    fake, ends = Fake({"a": 2, "b": 2, "c": 2}), list[bool]()
    fake.then["b0"] = lambda: ends.append(True)
    with stopping.told_by(lambda: bool(ends)):
        found = fake.run(*map(cell, "abc"))["a"]
    assert isinstance(found, Stopped)
    assert found.goes_on
    assert fake.asked[:2] == ["a0", "b0"]
    assert "a1" not in fake.asked


def test_what_ends_a_worker_ends_it_in_the_turn_of_another_cell_too() -> None:
    fake = Fake({"a": 2, "b": 1}, {"b0": Stopped()})
    assert isinstance(fake.run(*map(cell, "ab"))["a"], Stopped)
