"""The random order of a sample set's images."""

from __future__ import annotations

import random

import numpy as np
import pytest

from blip2sweep.rows import Id
from blip2sweep.tasks.order import order_of, prefix

FINGERPRINT = "b5bb9d80" * 8
PROMISED = [6, 1, 4, 2, 5, 0, 7, 3]


@pytest.mark.parametrize("ids", [list(range(300)), [f"COCO_{i}" for i in range(300)]])
def test_it_depends_on_the_sample_set_alone(ids: list[Id]) -> None:
    """Not on the file's order, nor on how many questions an image has."""
    found = order_of(FINGERPRINT, ids)
    shuffled = random.Random(1).sample([*ids, *ids[:99]], 399)
    assert found == order_of(FINGERPRINT, shuffled)
    assert sorted(found, key=str) == sorted(ids, key=str)
    assert found != order_of(FINGERPRINT.replace("b", "c"), ids)


def test_it_is_a_promise() -> None:
    """Predictions of stopped cells are prefixes of it: another order would make them useless."""
    assert order_of("ab12", range(8)) == PROMISED
    assert order_of("ab12", [str(i) for i in range(8)]) != [str(i) for i in PROMISED]


def test_its_prefixes_are_fair_samples() -> None:
    """Over many sample sets each image comes early as often as any other (chi-square of 200 images, 19 to 1)."""
    early = np.zeros(200)
    for i in range(400):
        early[np.array(order_of(f"{i:064x}", range(200))[:50], int)] += 1
    expected, variance = 100, 400 * 0.25 * 0.75
    assert 150 < ((early - expected) ** 2 / variance).sum() < 250


def test_a_prefix_brings_all_samples_of_its_images() -> None:
    order: list[Id] = ["c", "a", "b"]
    ids: list[Id] = ["a", "b", "c", "a", "c"]
    assert [prefix(order, ids, n) for n in range(4)] == [[], [2, 4], [0, 2, 3, 4], [0, 1, 2, 3, 4]]
