"""What cells may not share, what a worker remembers between them, and jobs that cannot be looked ahead to."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from blip2sweep.apply.calibration import origin
from blip2sweep.backends.torch import provenance
from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.cache.disk import Store
from blip2sweep.errors import UserError
from blip2sweep.models.load import load
from blip2sweep.models.opt import Opt
from blip2sweep.models.ragged import Rows
from tests.checkpoints import ROOT, TINY, tiny_config
from tests.in_process import jobs, run

SHAPES = ROOT / "blip2sweep" / "assets" / "shapes"


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """The data of the default task, to be broken."""
    return Path(shutil.copytree(SHAPES, tmp_path / "shapes"))


def first_images(shapes: Path, n: int) -> list[Path]:
    these = jobs("part=none", f"task.data_dir={shapes}", limit=n)
    return list(TorchBackend({"device": "cpu"}).task(these[0]).images.values())


def broken_jobs(shapes: Path, on_bad_image: str) -> list[dict[str, Any]]:
    return jobs("part=none", f"task.data_dir={shapes}", f"task.on_bad_image={on_bad_image}", limit=4)


# ---- broken images


@pytest.mark.parametrize("mode", ["disk", "memory"])
def test_a_skipped_image_is_still_an_error_where_that_is_asked_for(shapes: Path, tmp_path: Path, mode: str) -> None:
    first_images(shapes, 4)[1].write_text("no image")
    skip, error = broken_jobs(shapes, "skip"), broken_jobs(shapes, "error")
    one = TorchBackend({"device": "cpu", "cache": mode, "cache_dir": str(tmp_path / "cache")})
    assert len(one(skip[0]).predictions.id) == 3
    with pytest.raises(UserError, match="not a readable image"):
        one(error[0])


def test_an_image_that_could_not_be_read_once_fails_the_cell_and_is_read_by_the_next_job(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    these, bad = broken_jobs(shapes, "skip"), first_images(shapes, 4)[1]

    def flaky(path: Path) -> bytes:
        if path == bad:
            raise OSError("stale file handle")
        return path.read_bytes()

    settings = {"cache": "disk", "cache_dir": str(tmp_path / "cache")}
    with monkeypatch.context() as patched:
        patched.setattr("blip2sweep.models.images.content_of", flaky)
        with pytest.raises(UserError, match="images changed between planning and running"):
            run(these, **settings)
    assert Store(tmp_path / "cache", 0).info().entries == 0
    assert [len(p.id) for p, _ in run(these, **settings).values()] == [4]


# ---- code


def test_what_code_of_other_semantics_left_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    these, settings = jobs("part=none", limit=4), {"cache": "disk", "cache_dir": str(tmp_path)}

    def disk_hits() -> int:
        return sum(info["cost"].get("hits_disk", 0) for _, info in run(these, **settings).values())

    assert (disk_hits(), disk_hits()) == (0, 1)
    monkeypatch.setattr(provenance, "SEMANTICS", provenance.SEMANTICS + 1)
    assert (disk_hits(), disk_hits()) == (0, 1)
    monkeypatch.setattr(provenance, "versions", lambda: "blip2sweep 0 hqq 9.9")
    assert disk_hits() == 0


def test_measurements_are_of_one_code_too() -> None:
    loaded, job = load(tiny_config(), TINY), jobs("part=none", limit=4)[0]
    assert origin(loaded, job, provenance.computed_by())["code"] == provenance.computed_by()
    assert str(provenance.SEMANTICS) in provenance.computed_by().split()


# ---- what is remembered


def test_no_disk_is_no_disk(tmp_path: Path) -> None:
    settings = {"device": "cpu", "cache": "disk", "cache_dir": str(tmp_path / "cache")}
    sizes = {gb: TorchBackend({**settings, "cache_gb": gb}).shared_work.store for gb in (None, 0, 0.5)}
    assert [s.budget for s in sizes.values() if s] == [20 * 10**9, 0, 5 * 10**8]
    run(jobs("part=none", limit=4), **settings, cache_gb=0)
    assert not (tmp_path / "cache").exists()


def test_a_batch_that_did_not_fit_is_not_tried_again_by_the_next_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    prefill = Opt.prefill

    def narrow(self: Opt, pictures: Rows, prompts: Any) -> Any:
        tried.append(len(pictures))
        if len(pictures) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return prefill(self, pictures, prompts)

    monkeypatch.setattr(Opt, "prefill", narrow)
    these = jobs("part=llm", "quant.bits=2,8", limit=20)
    costs = [info["cost"] for _, info in run(these).values()]
    assert [c["oom_halvings"] for c in costs] == [2, 0, 0]
    assert [c["sequence_batch_size"] for c in costs] == [5, 5, 5]
    assert sum(n > 5 for n in tried) == 2


def test_features_are_hashed_once_for_all_cells_that_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    real, hashed = Rows.digest, list[int]()
    monkeypatch.setattr(Rows, "digest", lambda rows: hashed.append(len(rows)) or real(rows))
    run(jobs("part=llm", "quant.bits=2,3,8", limit=4))
    assert hashed == [4]
    run(jobs("part=vit", "quant.bits=2,3", limit=4))
    assert hashed == [4] * 4  # another ViT, other features


# ---- looking ahead


@pytest.fixture
def gone(shapes: Path) -> dict[str, Any]:
    """A job whose images and captions were there when it was planned."""
    job = jobs("part=none", f"task.data_dir={shapes}", limit=5)[0]
    shutil.rmtree(shapes)
    return job


def test_a_job_that_cannot_be_read_any_more_fails_itself_alone(gone: dict[str, Any]) -> None:
    good = jobs("part=llm", "quant.bits=3", limit=4)
    one = TorchBackend({"device": "cpu"})
    one.expect([good[0], gone, good[1]])
    assert len(one(good[0]).predictions.id) == 4
    with pytest.raises(UserError, match="shapes"):
        one(gone)
    assert one(good[1]).cost["hits_bridge"] == 4  # what was looked ahead to is still known
