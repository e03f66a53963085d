"""Counters of energy: read where the machine lets them be, and never missed where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from blip2sweep.machine import energy
from blip2sweep.machine.energy import cpu_meter, gpu_meter


def package(root: Path, name: str, used: int, most: int = 1000_000_000) -> Path:
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "energy_uj").write_text(f"{used}\n")
    (folder / "max_energy_range_uj").write_text(f"{most}\n")
    return folder


def test_packages_add_up_and_their_domains_are_not_counted_twice(tmp_path: Path) -> None:
    package(tmp_path, "intel-rapl:0", 2_000_000)
    package(tmp_path, "intel-rapl:1", 3_000_000)
    package(tmp_path, "intel-rapl:0:0", 9_000_000)  # of package 0
    meter = cpu_meter(tmp_path)
    assert meter is not None
    before = meter()
    package(tmp_path, "intel-rapl:1", 3_500_000)
    after = meter()
    assert before is not None
    assert after is not None
    assert after - before == 0.5


def test_a_counter_that_begins_again_goes_on(tmp_path: Path) -> None:
    package(tmp_path, "intel-rapl:0", 900_000_000)
    meter = cpu_meter(tmp_path)
    assert meter is not None
    before = meter()
    package(tmp_path, "intel-rapl:0", 100_000_000)
    assert before is not None
    assert meter() == before + 200


@pytest.mark.parametrize("content", [None, "", "nothing"])
def test_a_counter_that_cannot_be_read_is_none(tmp_path: Path, content: str | None) -> None:
    package(tmp_path, "intel-rapl:0", 1)
    broken = package(tmp_path, "intel-rapl:1", 1)
    (broken / "energy_uj").unlink()
    if content is not None:
        (broken / "energy_uj").write_text(content)
    assert cpu_meter(tmp_path) is None


def test_a_counter_that_is_gone_later_tells_nothing(tmp_path: Path) -> None:
    folder = package(tmp_path, "intel-rapl:0", 1)
    meter = cpu_meter(tmp_path)
    assert meter is not None
    (folder / "energy_uj").unlink()
    assert meter() is None


def test_a_machine_without_counters_has_no_meter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cpu_meter(tmp_path / "absent") is None
    monkeypatch.setattr(energy, "_nvml", lambda: None)
    assert gpu_meter("GPU-0") is None
