"""The checks in their order, the most valuable first. No torch here."""

from __future__ import annotations

from collections.abc import Mapping

# {name: (share of the time, the seconds below which it is not begun)}. Shares are about the seconds of 9 minutes on a card
# of the largest kind.
ORDER: Mapping[str, tuple[float, float]] = {
    "machine": (25, 0),
    "draw": (45, 0),
    "sweep": (100, 15),
    "reference": (75, 10),
    "decoding": (90, 10),
    "restore": (20, 5),
    "unshared": (35, 5),
    "out_of_memory": (30, 5),
    "packed": (50, 5),
    "gptq": (25, 5),
    "llava": (55, 30),
}
