"""The order in which a cell that may stop early goes through the images.

One order for a sample set, derived from its fingerprint: the first n images are the same for all cells, so that two
cells that stopped are compared on the shorter one's images, and a cell that goes on wastes nothing. The order of a file
will not do, because annotation files are sorted by what their authors sorted by (docs/stopping.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise

from blip2sweep.canonical import canonical_json
from blip2sweep.rows import Id


def order_of(sample_set_fingerprint: str, image_ids: Sequence[Id]) -> list[Id]:
    """The distinct images in the random order of a sample set: by the sha256 of its fingerprint and the image's id.

    It does not depend on the order of `image_ids`, nor on any library's random numbers.
    """

    def drawn(image: Id) -> bytes:
        return hashlib.sha256(f"{sample_set_fingerprint} {canonical_json(image)}".encode()).digest()

    return sorted({*image_ids}, key=drawn)


def prefix(order: Sequence[Id], image_ids: Sequence[Id], images: int) -> list[int]:
    """The places in `image_ids` of all samples of the first `images` images of the order, ascending."""
    own = {*order[:images]}
    return [i for i, image in enumerate(image_ids) if image in own]


def places_of(steps: Sequence[int]) -> str:
    """The segments between steps, as a job's task names them (`places`): `64-96,96-128` of 64, 96, 128."""
    return ",".join(f"{first}-{end}" for first, end in pairwise(steps))


def segments_of(places: str) -> list[tuple[int, int]]:
    """The inverse of `places_of`: (first, end) of each segment."""
    return [(int(first), int(end)) for first, _, end in (segment.partition("-") for segment in places.split(","))]
