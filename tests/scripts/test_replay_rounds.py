"""The replay of rounds asks the product's own forecast, and cells stop in it where the replay of stopping has them stop."""

from __future__ import annotations

import numpy as np
import pytest

from blip2sweep.metrics.forecast import CAUTION, DRIFT, forecast
from blip2sweep.metrics.stopping import Sums, image_sums, looks
from scripts.replay_rounds import STEPWISE, Computed, computed, forecasts, replay, table
from scripts.replay_stopping import RULES, Scores, sums_at
from scripts.replay_stopping import replay as stops

NOW = CAUTION, DRIFT
AT = looks(500)


@pytest.fixture(scope="module")
def scores() -> Scores:
    """Cells from silent to the baseline itself."""
    rng = np.random.default_rng(0)
    base = rng.exponential(1.2, 500)
    cells = [np.where(rng.random(500) < k, base * rng.uniform(0, 2 - k, 500), base) for k in np.linspace(0, 1, 12)]
    return Scores(np.array([base * 0, *cells]), base)


@pytest.fixture(scope="module")
def sums(scores: Scores) -> Sums:
    return sums_at(scores, np.arange(500), AT)


@pytest.mark.parametrize("name", RULES)
def test_forecasts_are_the_products(scores: Scores, sums: Sums, name: str) -> None:
    found = forecasts(RULES[name], sums, AT, NOW)
    for cell in range(len(scores.cells)):
        for look, seen in enumerate(AT[:-1]):
            own = image_sums(scores.cells[cell, :seen], scores.base[:seen])
            assert AT[found[cell, look]] == forecast(RULES[name], own, seen, AT[look + 1 :])


@pytest.mark.parametrize("name", RULES)
def test_a_forecast_saves_rounds_and_moves_no_stop(scores: Scores, sums: Sums, name: str) -> None:
    ours, stepwise = (computed(RULES[name], sums, AT, setting) for setting in (NOW, STEPWISE))
    expected = stops(sums, AT, scores.kept)[name].images.mean() / 500
    assert ours.used == stepwise.used == stepwise.computed == pytest.approx(expected)
    assert ours.computed >= ours.used
    assert ours.rounds <= stepwise.rounds


def test_the_table_has_a_line_for_each_rule_and_setting(scores: Scores) -> None:
    lines = table(replay(scores, 2, 0, [STEPWISE, NOW]))
    assert len(lines) == 2 + 2 * len(RULES)
    assert lines[2].startswith("| known to ±5 % | look by look |")
    assert lines[3].startswith(f"| known to ±5 % | {CAUTION:g}, {DRIFT:g} |")
    assert (
        table({("a", NOW): Computed(0.2, 0.21, 2.5)})[2]
        == f"| a | {CAUTION:g}, {DRIFT:g} | 20.0 % | 21.0 % | 5.0 % | 2.5 |"
    )
