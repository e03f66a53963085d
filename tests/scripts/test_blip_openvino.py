"""The script of OpenVINO's guide to BLIP, on a few numbers."""

from __future__ import annotations

import argparse

import pytest

pytest.importorskip("nncf")

from scripts.blip_openvino import measured, shown

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize("kind", ["caption", "vqa"])
def test_sizes_and_latencies_of_both_variants(kind: str) -> None:
    args = argparse.Namespace(calibration=4, samples=4, words=2, hints="exact", threads=1, small=True)
    found = measured(kind, args)
    before, after = found["bytes"].values()
    assert before.keys() == after.keys() >= {"vision", "cross", "language"}
    assert ("questions" in before) == (kind == "vqa")
    assert all(after[name] < before[name] for name in before)
    assert found["ms"].keys() == {"16 bits", "8 bits", "torch, float32"}
    assert all(x["p10"] <= x["median"] <= x["p90"] for x in found["ms"].values())
    assert "\n  all " in shown(kind, found)
