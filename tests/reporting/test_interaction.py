"""The interaction map of any set of parts."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest

from blip2sweep.reporting.figure import Figure
from blip2sweep.reporting.interaction import Layout, Panel, layouts, why_not
from blip2sweep.reporting.static import write_static


def grid(**widths: list[float]) -> pd.DataFrame:
    """Every combination of widths, the baseline first, as `width_grid` gives it."""
    rows = [dict(zip(widths, combined, strict=True)) for combined in product(*widths.values())]
    told = [
        {"setting": "rtn", "size": 1.0 * sum(r.values()), "drop": 16 - np.mean(list(r.values())), **r} for r in rows
    ]
    base = {"setting": "none", "size": 16.0 * len(widths), "drop": 0.0, **dict.fromkeys(widths, 16.0)}
    return pd.DataFrame([base, *told]).assign(low=-1.0, high=lambda t: t["drop"])


def test_two_parts_are_one_heat_map_the_later_one_across() -> None:
    found = layouts(grid(eye=[2, 4], bridge=[16.0], reader=[3, 8]), ["eye", "bridge", "reader"], {})
    assert found == {"rtn": Layout("reader", "eye", [Panel("", {})])}
    assert layouts(grid(eye=[2, 4], bridge=[3, 8]), ["eye", "bridge"], {"bridge": "connector"})["rtn"].x == "bridge"


def test_of_three_parts_the_connector_makes_panels_whatever_it_is_called() -> None:
    data, parts = grid(eye=[2, 4], bridge=[2, 3, 4, 8], reader=[3, 8]), ["eye", "bridge", "reader"]
    found = layouts(data, parts, {"eye": "vision", "bridge": "connector", "reader": "language"})["rtn"]
    assert (found.x, found.y, found.single) == ("reader", "eye", 1)
    assert [p.title for p in found.panels] == ["bridge 8", "bridge 4", "bridge 3", "bridge 2"]
    assert [p.at for p in found.panels] == [{"bridge": w} for w in (8, 4, 3, 2)]


def test_of_three_parts_without_a_connector_that_with_fewest_widths_makes_panels() -> None:
    found = layouts(
        grid(a=[2, 3, 4], b=[2], c=[3, 8, 4]), ["a", "b", "c"], {"a": "vision", "b": "language", "c": "language"}
    )
    assert [p.at for p in found["rtn"].panels] == [{"b": 2}]
    assert (found["rtn"].x, found["rtn"].y) == ("c", "a")


def test_of_four_parts_two_make_panels_together() -> None:
    data = grid(a=[2, 3, 4], b=[4, 16.0], c=[3, 8, 4], d=[2, 4])
    found = layouts(data, list("abcd"), {"b": "connector"})["rtn"]
    assert (found.x, found.y) == ("c", "a")
    assert [p.title for p in found.panels] == ["b –, d 4", "b –, d 2", "b 4, d 4", "b 4, d 2"]
    assert found.panels[0].at == {"b": 16, "d": 4}


def test_of_one_part_nothing_is_drawn_and_it_is_said() -> None:
    data = grid(eye=[2, 3, 4], reader=[16.0])
    assert layouts(data, ["eye", "reader"], {}) == {}
    assert why_not(data, ["eye", "reader"]) == " Only eye was run at several widths."
    assert why_not(grid(eye=[4, 3], reader=[3, 4]).iloc[[0, 1]], ["eye", "reader"]).startswith(" No method has")


@pytest.mark.parametrize(
    "widths", [{"eye": [2, 4], "reader": [3, 8]}, {"a": [2, 3], "b": [4, 8], "c": [2, 4], "d": [2, 3]}]
)
def test_the_picture_takes_any_parts(widths: dict[str, list[float]], tmp_path) -> None:
    data = grid(**widths)
    figure = Figure("map", "Map", "", data, "", layouts=layouts(data, list(widths), {}))
    assert [p.name for p in write_static([figure], tmp_path, "png", "CIDEr")] == ["map.png"]
