"""A cell and its baseline are timed in turns, and what comes of that does not depend on who was first."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

from blip2sweep.backends.torch import turns
from blip2sweep.backends.torch.turns import BASELINE, CELL, Where, in_turns, p90

SECONDS = {CELL: 0.002, BASELINE: 0.004}


@dataclass
class Bench:
    """A model that takes a known time an image. fits: the largest batch that each side has memory for."""

    fits: dict[str, int] = field(default_factory=dict)
    joules: float | None = None
    now: str = ""
    entered: list[str] = field(default_factory=list)
    timed: list[tuple[str, int]] = field(default_factory=list)

    @contextlib.contextmanager
    def side(self, name: str) -> Iterator[None]:
        assert not self.now  # sides are never one inside the other
        self.now = name
        self.entered.append(name)
        yield
        self.now = ""

    def run(self, batch: int, i: int) -> tuple[float, int]:
        self.timed.append((self.now, batch))
        if self.joules is not None:
            self.joules += batch * SECONDS[self.now] * 1000
        return batch * SECONDS[self.now], min(batch, self.fits.get(self.now, batch))

    def __call__(self, largest: int = 8, only: tuple[str, ...] = (CELL, BASELINE)):  # type: ignore[no-untyped-def]
        meter = None if self.joules is None else lambda: self.joules
        sides = {name: (lambda name=name: self.side(name)) for name in only}
        return in_turns(sides, self.run, largest, Where("d", 2, meter))


@pytest.fixture(autouse=True)
def _no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "BUDGET", 1e9)


def test_both_batches_of_both_sides() -> None:
    one, eight = Bench()()
    assert [(x["device"], x["threads"], x["batch"]) for x in (one, eight)] == [("d", 2, 1), ("d", 2, 8)]
    for x in (one, eight):  # milliseconds of an image
        assert x["ms_median"] == x["ms_p90"] == pytest.approx(2)
        assert x["baseline_ms_median"] == x["baseline_ms_p90"] == pytest.approx(4)
        assert "joules" not in x
    assert (one["runs"], eight["runs"]) == (turns.MOST * turns.SINGLES, turns.MOST * turns.BATCHES)


def test_the_order_is_balanced_and_the_model_changes_no_more_often_than_it_must() -> None:
    bench = Bench()
    bench()
    assert bench.entered == [CELL, BASELINE, CELL, BASELINE, CELL, BASELINE, CELL]
    assert bench.timed.count((CELL, 8)) == bench.timed.count((BASELINE, 8))


def test_no_further_round_begins_after_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "BUDGET", -1.0)
    bench = Bench()
    one, _ = bench()
    assert one["runs"] == turns.FEWEST * turns.SINGLES
    assert bench.entered == [CELL, BASELINE, CELL, BASELINE]


@pytest.mark.parametrize("fits", [{CELL: 4}, {BASELINE: 4}])
def test_both_sides_have_the_batch_that_fits_both(fits: dict[str, int]) -> None:
    _, batch = Bench(fits)()
    assert batch["batch"] == 4
    assert batch["ms_median"] == pytest.approx(2)


def test_a_baseline_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    one, _ = bench(only=(CELL,))
    assert one["baseline_ms_median"] == one["ms_median"]
    assert set(bench.entered) == {CELL}


def test_one_disturbed_turn_moves_neither_median(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the fewest rounds: a turn of one side takes three times as long."""
    monkeypatch.setattr(turns, "BUDGET", -1.0)
    bench = Bench()
    run = bench.run
    monkeypatch.setattr(
        bench, "run", lambda batch, i: (run(batch, i)[0] * (3 if bench.entered == [CELL] else 1), batch)
    )
    for x in bench():
        assert x["ms_median"] / x["baseline_ms_median"] == pytest.approx(0.5)


def test_one_image_has_one_batch_size() -> None:
    (one,) = Bench()(largest=1)
    assert one["runs"] == turns.MOST * turns.SINGLES


def test_energy_is_that_of_an_image_where_turns_are_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "COUNTED", 0.02)
    one, eight = Bench(joules=0.0)()
    assert "joules" not in one  # a turn of single images takes the cell 0.016 s
    assert (eight["joules"], eight["baseline_joules"]) == (pytest.approx(2), pytest.approx(4))


@pytest.mark.parametrize("n", [1, 2, 3, 16, 33])
def test_p90_is_numpys(n: int) -> None:
    values = np.random.default_rng(n).random(n).tolist()
    assert p90(values) == pytest.approx(np.percentile(values, 90))
