"""The shared store as a user sees it: measured and emptied by commands, and told of once when it cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from blip2sweep.cache import disk as cache
from tests.command_line import blip2sweep
from tests.in_process import jobs, run


@pytest.fixture(autouse=True)
def _no_user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.USER, str(tmp_path / "user"))


def test_the_store_says_its_size_and_is_emptied(tmp_path: Path) -> None:
    assert blip2sweep("cache", "info", cwd=tmp_path).out.endswith("outputs/cache: 0 entries, 0.0 MB\n")
    run(jobs("part=llm", "quant.bits=3", limit=100), cache="disk", cache_dir=str(tmp_path / "outputs/cache"))
    (tmp_path / "outputs/cells").write_text("results")
    shared, user = blip2sweep("cache", cwd=tmp_path).out.splitlines()
    assert shared.endswith("outputs/cache: 1 entries, 0.3 MB")  # 100 × 12 × 64 × 4 bytes
    assert user.endswith("user/images: 1 entries, 0.0 MB")
    shared, user = blip2sweep("cache", "clear", cwd=tmp_path).out.splitlines()
    assert shared.endswith("1 entries, 0.3 MB removed")
    assert user.endswith("user/images: 1 entries, 0.0 MB removed")
    for folder in ("outputs/cache", "user/images"):
        assert not list((tmp_path / folder).iterdir())
    assert (tmp_path / "outputs/cells").read_text() == "results"


@pytest.mark.parametrize(("mode", "warnings"), [("disk", 1), ("memory", 0), ("off", 0)])
def test_whoever_starts_a_sweep_hears_of_a_store_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str, warnings: int
) -> None:
    (tmp_path / "cache").write_text("in the way")
    cache.settings({"output_dir": str(tmp_path), "cache": mode})
    told = capsys.readouterr().err
    assert told.count("cache: not a writable folder; going on in memory. Right: ") == warnings
    assert len(told.splitlines()) == warnings
