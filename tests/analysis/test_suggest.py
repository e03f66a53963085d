"""Which cells are suggested: those that teach most for each second."""

from __future__ import annotations

import numpy as np
import pytest

from blip2sweep.analysis.predict import Predictor, fit
from blip2sweep.analysis.suggest import images_to_see, suggest
from blip2sweep.metrics.stopping import FIRST

NOISE = np.array([[n, m] for n in (0.0, 0.05, 0.5, 1.0, 3.0) for m in (0.0, 0.05, 0.5, 1.0, 3.0)])


def metric(noise: np.ndarray) -> np.ndarray:
    return 1 / (1 + noise @ np.array([0.3, 2.0]))


def test_what_costs_a_hundred_times_as_much_is_suggested_last() -> None:
    known = [0, 4, 20, 24]
    predictor = fit(NOISE[known], metric(NOISE[known]), 1.0, ["a", "b"])
    first, second = suggest(predictor, NOISE, known, 2)
    seconds = np.ones(len(NOISE))
    seconds[first] = 100
    dearer = suggest(predictor, NOISE, known, len(NOISE) - len(known), seconds)
    assert dearer[0] != first
    assert dearer[-1] == first
    assert second in dearer
    assert suggest(predictor, NOISE, known, 2, np.full(len(NOISE), 7.0)) == [first, second]


def test_only_cells_of_some_weight_teach() -> None:
    known = [0, 24]
    predictor = fit(NOISE[known], metric(NOISE[known]), 1.0, ["a", "b"])
    weight = np.zeros(len(NOISE))
    weight[7] = 1.0
    covariance = predictor.covariance(NOISE)
    gain = covariance[:, 7] ** 2 / (np.diag(covariance) + predictor.scales[2] + 1e-9)
    gain[known] = -1
    assert suggest(predictor, NOISE, known, 1, weight=weight) == [int(gain.argmax())]


def test_fewer_images_are_seen_of_what_is_clear() -> None:
    kept = np.array([0.1, 0.7, 0.9, 0.999])
    seen = images_to_see(kept, 1000, 0.05)
    assert seen[0] == seen[3] == FIRST
    assert FIRST < seen[2] < seen[1] < 1000
    assert (images_to_see(kept, 1000, 0.01)[1:3] == 1000).all()
    assert (images_to_see(kept, 20, 0.05) == 20).all()


def test_a_cell_known_less_well_moves_the_fit_less() -> None:
    off = metric(NOISE)
    off[12] += 0.2
    kept = metric(NOISE)[12]
    sure = fit(NOISE, off, 1.0, ["a", "b"], np.zeros(len(NOISE)))
    errors = np.zeros(len(NOISE))
    errors[12] = 0.2
    unsure = sure.again(NOISE, off, errors)
    place = np.arange(len(NOISE))
    at, error = (found[12] for found in sure.latent(NOISE, place))
    at_unsure, error_unsure = (found[12] for found in unsure.latent(NOISE, place))
    assert abs(at_unsure - kept) < abs(at - kept)
    assert error_unsure > error
    assert at == pytest.approx(off[12], abs=0.02)


class Apart(Predictor):
    """A predictor to which no cell says anything of another one."""

    def __init__(self) -> None:
        self.scales = np.zeros(3)

    def covariance(self, noise: np.ndarray) -> np.ndarray:
        return np.eye(len(noise))


def test_a_cell_that_takes_no_time_and_teaches_nothing_hides_no_other() -> None:
    noise, known = NOISE[:5], [3]
    weight, seconds = np.array([0.0, 1.0, 2.0, 5.0, 3.0]), np.array([0.0, 1.0, 1.0, 0.0, 1.0])
    assert suggest(Apart(), noise, known, 3, seconds, weight) == [4, 2, 1]
    assert suggest(Apart(), noise, known, 4, 0 * seconds, 0 * weight) == [0, 1, 2, 4]  # the known one never
