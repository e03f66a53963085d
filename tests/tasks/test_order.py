"""The random order of a sample set's images."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from blip2sweep.rows import Id
from blip2sweep.tasks import PlannedTasks
from blip2sweep.tasks.order import order_of, places_of, prefix, segments_of
from tests.in_process import jobs

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


def test_segments_are_named() -> None:
    assert places_of([64, 96, 128]) == "64-96,96-128"
    assert segments_of("64-96,96-128") == [(64, 96), (96, 128)]
    assert segments_of(places_of([0, 7])) == [(0, 7)]


def test_a_job_of_several_segments_has_the_samples_of_each() -> None:
    """Each of the processes that share it has its share of every segment, as of the rounds that are one segment."""
    read: Any = PlannedTasks()
    task = jobs("part=none", "task=shapes_vqa", limit=60)[0]["task"]
    whole = read(task)
    order = order_of(whole.fingerprint, [*whole.images])
    found = read({**task, "places": "3-10,10-11,11-19"})
    assert [s.id for s in found.samples] == [s.id for s in whole.samples if s.image_id in order[3:19]]
    assert found.planned == read({**task, "places": "3-19"}).planned
    shares = [read({**task, "places": "3-10,10-11,11-19", "share": f"{rank}/3"}) for rank in range(3)]
    assert sorted(i for share in shares for i in share.images) == sorted(order[3:19])
    for rank, share in enumerate(shares):
        own = [read({**task, "places": p, "share": f"{rank}/3"}).images for p in ("3-10", "10-11", "11-19")]
        assert share.images.keys() == {image for images in own for image in images}
