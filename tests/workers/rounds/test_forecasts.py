"""How long the rounds of a cell are changes no result: where it stops is what its first images say."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blip2sweep.backends.backend import Answered
from blip2sweep.backends.dummy import Dummy
from blip2sweep.metrics.metric import FloatArray
from blip2sweep.metrics.stopping import Rule, decide, image_sums, kept, looks
from blip2sweep.results import looking, prefixes
from blip2sweep.tasks import planned_task
from blip2sweep.tasks.order import order_of, places_of, segments_of
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.wire.stopping import LookAnswer, LookRequest
from tests.workers.rounds.work import OF, Judge, Work, predictions


class Scored:
    """In the place of the process that looks at cells, for scores by image in the order. go: of the looks to come the one up
    to which the next images are asked for."""

    def __init__(self, rule: Rule, x: FloatArray, b: FloatArray, go: Callable[[list[int]], int]) -> None:
        self.rule, self.x, self.b, self.go = rule, x, b, go

    def stop(self, places: Sequence[int]) -> tuple[int, str] | None:
        found = ((n, decide(self.rule, kept(image_sums(self.x[:n], self.b[:n])))) for n in places)
        return next(((n, reason) for n, reason in found if reason), None)

    def __call__(self, request: LookRequest) -> LookAnswer:
        there = len({*request["predictions"]["image_id"]})
        assert all(n <= there for n in request["looks"])
        assert request["coming"] == [n for n in looks(OF) if n > there]
        if found := self.stop(request["looks"]):
            return {"reason": found[1], "images": found[0], "ahead": None, "error": None}
        ahead = self.go(request["coming"]) if request["coming"] else None
        return {"reason": None, "images": None, "ahead": ahead, "error": None}


@pytest.fixture(scope="module")
def whole(cells: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answered, list[Any]]:
    """A folder with the baseline, the whole answer of a cell, and its images in the order."""
    folder = tmp_path_factory.mktemp("whole")
    Work(folder, cells)("base")
    data = planned_task(cells["same"]["task"])
    return folder, Dummy({})(cells["same"]), order_of(data.fingerprint, [*data.images])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6), changed=st.floats(0, 1), keeps=st.floats(0, 1.2), stop=st.sampled_from(["known", "verdict"]),
    margin=st.sampled_from([0.02, 0.05, 0.1, 0.2]), first=st.sampled_from([0, 1, 40, 64, 70, 96, 199, OF]), jumps=st.integers(0, 10**6),
)  # fmt: skip
def test_it_stops_at_the_same_images_however_long_its_rounds_are(
    cells: dict[str, Any], whole: tuple[Path, Answered, list[Any]], seed: int, changed: float, keeps: float, stop: str,
    margin: float, first: int, jumps: int,
) -> None:  # fmt: skip
    folder, all_of_it, order = whole
    rng, job, asked = np.random.default_rng(seed), cells["same"], list[str]()
    b = rng.exponential(1.2, OF)
    x = np.where(rng.random(OF) < changed, b * rng.uniform(0, 2 * keeps, OF), b)
    work = Work(folder, cells, stop, margin)
    go = random.Random(jumps).choice
    look = Scored(Rule(stop, margin), x, b, go)  # type: ignore[arg-type]
    work.rounds.look = Judge(look)  # type: ignore[assignment]

    def of(images: Sequence[Any]) -> Predictions:
        return all_of_it.predictions.take([i for i, im in enumerate(all_of_it.predictions.image_id) if im in {*images}])

    def ask(job: Any) -> Answered:
        asked.append(job["task"]["places"])
        own = [image for a, b in segments_of(job["task"]["places"]) for image in order[a:b]]
        return Answered(of(own), {"seconds": 1.0})

    work.rounds.committed(job)
    if first:  # rounds that were kept, of any number of images
        prefixes.write_prefix(folder, job["key"], prefixes.Prefix(first, of(order[:first]), {"seconds": 1.0}, 0, {}))
    found = work.rounds(job, ask)
    expected = look.stop(looks(OF)[:-1])
    assert (found.stopped and (found.stopped["images"], found.stopped["reason"])) == expected
    assert found.predictions == of(order[: expected[0] if expected else OF])
    ends = [end for places in asked for _, end in segments_of(places)]
    assert found.cost["images_computed"] == max([first, *ends])
    assert ",".join(asked) == places_of([first, *(n for n in looks(OF) if first < n <= max([first, *ends]))])
    work.rounds.committed(job)


@pytest.mark.parametrize("ahead", [min, max])
def test_forecasts_change_no_line_of_a_result(
    tmp_path: Path, cells: dict[str, Any], ahead: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was computed beyond is dropped, and counted."""
    monkeypatch.setattr(looking, "forecast", lambda rule, sums, seen, coming: ahead(coming))
    work = Work(tmp_path, cells)
    work("base")
    found = work("same")
    assert found["stopped"] == {"images": 128, "of": OF, "reason": "known to ±5 %", "stop": "known", "margin": 0.05}
    assert len({*predictions(work, found).image_id}) == 128
    assert found["cost"]["images_computed"] == (128 if ahead is min else OF)
    # Who goes on computes the images again that were dropped: the result has nothing of them.
    rest = Work(tmp_path, cells, stop=None)
    assert rest("same")["predictions"] == Dummy({})(cells["same"]).predictions.hash
    assert rest.backend.asked == ["128-200"]


def test_a_worker_that_is_killed_while_a_cell_is_judged_computes_nothing_again(
    tmp_path: Path, cells: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the round went to the end, past the look at which the cell stops."""
    monkeypatch.setattr(looking, "forecast", lambda rule, sums, seen, coming: max(coming))
    work = Work(tmp_path, cells)
    work("base")

    def killed(request: LookRequest) -> LookAnswer:
        if len(request["looks"]) > 1:
            raise KeyboardInterrupt
        return looking.answer(looking.Looks(tmp_path), request)

    work.rounds.look = Judge(killed)  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        work.rounds(cells["same"], work.backend)
    again = Work(tmp_path, cells)
    assert again("same")["stopped"]["images"] == 128
    assert again.backend.asked == []
    assert again.kept == []
