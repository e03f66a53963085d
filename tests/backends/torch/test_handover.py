"""What the first process of a cell has calibrated is the others', bit for bit; and what happens where it does not come."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest
import torch

from blip2sweep.backends.backend import Answered, NoImage
from blip2sweep.backends.shares import ENDED, share_of
from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.backends.torch.handover import Handover
from blip2sweep.compression.quantize.prepared import Prepared
from blip2sweep.tasks.scenes import write_split
from blip2sweep.wire.pack import Share
from tests.in_process import jobs


def share(rank: int, folder: Path) -> Share:
    return {"rank": rank, "count": 2, "folder": str(folder)}


def layers(seed: int) -> dict[str, Prepared]:
    """One layer with all that calibration may make, in half precision and broken; one of which only the range is known."""
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(seed)).to(torch.bfloat16)
    weight[0, 0], weight[1, 1] = float("nan"), -0.0
    low, high = torch.tensor(-1.5), torch.tensor(2.0)
    info = {"tokens": 3, "rank": 2, "inputs": 4, "seconds": 0.1}
    return {"b": Prepared("k", weight, torch.rand(4), low, high, info), "a": Prepared("l", None, None, low, high)}  # type: ignore[arg-type]


def byte(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(-1).view(torch.uint8)


def same(a: Prepared, b: Prepared) -> bool:
    pairs = [(getattr(a, f), getattr(b, f)) for f in ("weight", "prescale", "low", "high")]
    bits = all(x is y is None or torch.equal(byte(x), byte(y)) for x, y in pairs)
    return bits and (a.key, a.info) == (b.key, b.info)


def test_each_calibration_is_taken_over_in_turn(tmp_path: Path) -> None:
    first, second = Handover(share(0, tmp_path)), Handover(share(1, tmp_path), torch.device("cpu"))
    made = [layers(seed) for seed in (0, 1)] + [{}]
    found: list[dict[str, Prepared]] = []

    def never() -> dict[str, Prepared]:
        raise AssertionError("calibrated twice")

    taker = threading.Thread(target=lambda: found.extend(second(never) for _ in made))
    taker.start()
    assert all(first(lambda m=m: m) is m for m in made)  # type: ignore[misc]
    taker.join(timeout=10)
    assert [list(f) for f in found] == [list(m) for m in made]
    assert all(same(f[path], m[path]) for f, m in zip(found, made, strict=True) for path in m)


def test_alone_nothing_is_written(tmp_path: Path) -> None:
    made = layers(0)
    assert Handover()(lambda: made) is made
    assert list(tmp_path.iterdir()) == []


def test_who_waits_for_what_never_comes_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "cell"
    folder.mkdir()
    threading.Timer(0.1, shutil.rmtree, (folder,)).start()
    with pytest.raises(RuntimeError, match="the first process of the cell ended before it had calibrated"):
        Handover(share(1, folder))(lambda: {})


def test_who_waits_for_a_process_that_ended_is_told(tmp_path: Path) -> None:
    """What was given before is taken all the same."""
    Handover(share(0, tmp_path))(lambda: layers(0))
    (tmp_path / ENDED).touch()
    second = Handover(share(1, tmp_path))
    assert second(dict).keys() == layers(0).keys()
    told: list[str] = []

    def take() -> None:
        try:
            second(dict)
        except RuntimeError as error:
            told.append(str(error))

    waiting = threading.Thread(target=take, daemon=True)
    waiting.start()
    waiting.join(timeout=10)
    assert told == ["the first process of the cell ended before it had calibrated"]


@pytest.mark.thorough
def test_a_noise_floor_is_that_of_the_processes_with_readable_pictures(tmp_path: Path) -> None:
    """The first process calibrates for the others also where it can read no picture."""
    write_split(tmp_path, "val2014", 4, seed=1)
    write_split(tmp_path, "train2014", 2, seed=2, first_id=101)
    for path in sorted((tmp_path / "val2014").iterdir())[:2]:
        path.write_bytes(b"no image")
    words = ("part=language", "quant=gptq", "calibration.n_samples=2", "task.on_bad_image=skip")
    (job,) = (j for j in jobs(*words, f"task.data_dir={tmp_path}", limit=4) if j["calibration"])
    folder = tmp_path / "cell"
    folder.mkdir()
    found: dict[int, object] = {}

    def run() -> None:
        for rank in range(2):
            try:
                backend = TorchBackend({"device": "cpu", "threads": 1, "noise_floor": True})
                found[rank] = backend(share_of(job, rank, 2, folder))
            except Exception as error:
                found[rank] = error

    running = threading.Thread(target=run, daemon=True)
    running.start()
    running.join(timeout=60)
    shutil.rmtree(folder)  # ends whoever still waits
    assert isinstance(found[0], NoImage)
    answered = found[1]
    assert isinstance(answered, Answered)
    floor = {name: len(second.predictions.id) for name, second in answered.calibration_noise.items()}
    assert floor == {"seed": 2, "arithmetic": 2}


def test_a_full_disk_is_an_error_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"0\.tmp"):
        Handover(share(0, tmp_path / "absent"))(lambda: layers(0))
