"""Several processes that share each cell: the rows of one process, and what is left of one that dies."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from blip2sweep.backends.backend import Answered, NoImage
from blip2sweep.backends.dummy import Dummy
from blip2sweep.backends.shares import Joiner, joined_cost
from blip2sweep.planning.packs import read_pack, write_packs
from blip2sweep.results.ledger import Attempts, Journal, Ledger
from blip2sweep.tasks import planned_task
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.tasks.scenes import write_split
from blip2sweep.wire.pack import CellJob
from blip2sweep.workers.death import ProcessFailed, temporary_prefix
from blip2sweep.workers.processes import Helper, Processes
from blip2sweep.workers.run_cell import failure
from blip2sweep.workers.supervisor import Supervisor
from blip2sweep.workers.worker import run_pack
from tests.composing import plan
from tests.in_process import jobs, told
from tests.in_process import run as alone
from tests.waiting import running, wait_until

pytestmark = pytest.mark.thorough

TORCH: dict[str, Any] = {"device": "cpu", "threads": 1, "propagation": True}
CAPTIONS = ("task=shapes_caption", "part=vision,language", "quant.bits=3")
CALIBRATED = ("task=shapes_vqa", "part=language", "quant=gptq,awq", "quant.bits=3", "calibration.n_samples=8")
SEVERAL = ("task=shapes_vqa", "part=vit,llm", "quant.bits=2")


@pytest.fixture(scope="module")
def two() -> Iterator[Processes]:
    """Two processes of the torch back end, for all tests here."""
    processes = Processes({**TORCH, "processes": 2})
    yield processes
    processes.close()
    assert not processes.folder.exists()


def shared(processes: Processes, these: list[dict[str, Any]]) -> dict[str, tuple[Predictions, dict[str, Any]]]:
    processes.expect(these)
    return {job["key"]: told(processes(job)) for job in these}


# ---- the rows


@pytest.mark.parametrize(("words", "limit"), [(CAPTIONS, 11), (CALIBRATED, 20)])
def test_rows_are_those_of_one_process(two: Processes, words: tuple[str, ...], limit: int) -> None:
    """In float32: texts, likelihoods but for rounding, calibrated weights and how far activations moved."""
    these = jobs(*words, limit=limit)
    for key, (predictions, rest) in alone(these, **TORCH).items():
        found, other = shared(two, [j for j in these if j["key"] == key])[key]
        same_answers(found, predictions)
        assert other["layers_changed"] == rest["layers_changed"]
        assert figures(other) == figures(rest)
        assert other["propagation"] == rest["propagation"]
        assert other["cost"]["processes"] == 2
        assert "processes" not in rest["cost"]


def same_answers(found: Predictions, one: Predictions) -> None:
    """The same rows. Sums of likelihoods are rounded as the batches are: with another batch_size they differ as much."""
    rounded = pytest.approx(one.nll_sum, rel=1e-4, abs=1e-6)
    assert found.nll_sum == rounded
    assert replace(found, nll_sum=None) == replace(one, nll_sum=None)


def figures(rest: dict[str, Any]) -> dict[str, dict[str, float]]:
    """What calibration measured of each layer, but for the time."""
    return {path: {k: v for k, v in info.items() if k != "seconds"} for path, info in rest["layers"].items()}


def test_in_half_precision_near_ties_are_counted(two: Processes) -> None:
    """As another batch size does, the division changes what is computed together. The second run counts for all."""
    (job,) = jobs("part=none", "model.dtype=bfloat16", limit=12)
    (one, _), (both, rest) = alone([job], **TORCH)[job["key"]], shared(two, [job])[job["key"]]
    assert one.id == both.id
    noise = rest["noise"]
    assert noise.predictions.id == one.id
    flips = sum(a != b for a, b in zip(noise.predictions.outputs, both.outputs, strict=True))
    assert noise.summary["flips"] == flips
    assert noise.summary["flip_rate"] == flips / len(one.id)
    assert sum(a != b for a, b in zip(one.outputs, both.outputs, strict=True)) <= 2  # near-ties


def test_images_that_cannot_be_read_may_be_all_of_a_share(two: Processes, tmp_path: Path) -> None:
    write_split(tmp_path, "val2014", 4, seed=1)
    write_split(tmp_path, "train2014", 1, seed=2, first_id=101)
    for path in sorted((tmp_path / "val2014").iterdir())[2:]:
        path.write_bytes(b"no image")
    (job,) = jobs("part=none", "task.on_bad_image=skip", f"task.data_dir={tmp_path}", limit=4)
    (one, rest), (both, other) = alone([job], **TORCH)[job["key"]], shared(two, [job])[job["key"]]
    same_answers(both, one)
    assert both.id == [1, 2]
    assert other["cost"]["bad_images"] == rest["cost"]["bad_images"] == 2


def test_a_first_process_without_pictures_lets_nobody_wait(two: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends before it has calibrated; the others are told."""
    *_, job = jobs(*CALIBRATED, limit=4)
    assert job["calibration"]

    def unreadable(*_: object) -> Answered:
        raise NoImage("no image of this share could be read")

    monkeypatch.setattr(two, "own", unreadable)
    told: list[str] = []

    def run() -> None:
        try:
            two(job)
        except ProcessFailed as error:
            told.append(str(error))

    running = threading.Thread(target=run, daemon=True)
    running.start()
    running.join(timeout=60)
    if running.is_alive():
        two.helpers[0].end()
    assert len(told) == 1
    assert "the first process of the cell ended before it had calibrated" in told[0]


def test_an_error_of_a_share_is_the_cells(two: Processes, tmp_path: Path) -> None:
    """In either process; the next cell runs."""
    write_split(tmp_path, "val2014", 4, seed=1)
    write_split(tmp_path, "train2014", 1, seed=2, first_id=101)
    first, *_, last = sorted((tmp_path / "val2014").iterdir())
    (job,) = jobs("part=none", f"task.data_dir={tmp_path}", limit=4)
    for path in (first, last):
        content = path.read_bytes()
        path.write_bytes(b"no image")
        with pytest.raises(Exception, match=f"{path.name}|images changed") as error:
            two(job)
        assert failure(error.value)["kind"] == "bad_config"
        path.write_bytes(content)
    assert len(two(job).predictions.id) == 4
    assert list(two.folder.iterdir()) == []


# ---- a worker with a back end that takes no time


def dummies(folder: Path, *words: str) -> tuple[list[dict[str, Any]], Path]:
    """(jobs of the dummy back end, their pack for two processes)."""
    made = [c.job() for c in plan("backend=dummy", *SEVERAL, "task.limit=8", *words).todo]
    (path,) = write_packs([made], folder / "sweeps" / "s", "s", "r", folder, {"processes": 2})
    return made, path


def attempts(folder: Path) -> dict[str, Attempts]:
    return Ledger(folder).refresh().attempts


def lines(folder: Path, event: str) -> list[dict[str, Any]]:
    found = [json.loads(x) for p in (folder / "journals").glob("*") for x in p.read_text().splitlines()]
    return sorted((x for x in found if x["event"] == event), key=lambda x: x["time"])


def helpers(pid: int | None = None, but: Collection[int] = ()) -> list[psutil.Process]:
    """The helper processes of a worker. but: of these pids."""
    return [p for p in psutil.Process(pid).children() if p.pid not in but and is_helper(p)]


def is_helper(process: psutil.Process) -> bool:
    try:
        return "blip2sweep.workers.helper" in process.cmdline()
    except psutil.Error:  # it has just ended
        return False


@pytest.fixture
def others() -> list[int]:
    """The pids of helpers of other tests."""
    return [p.pid for p in helpers()]


def left(pid: int) -> list[str]:
    """What a worker left in the folder for temporary files."""
    return [p.name for p in Path(tempfile.gettempdir()).glob(f"{temporary_prefix(pid)}*")]


def test_a_cell_has_one_attempt_and_the_row_of_one_process(tmp_path: Path, others: list[int]) -> None:
    (made, path), before = dummies(tmp_path), left(os.getpid())
    with closing(Journal(tmp_path)) as journal:
        assert run_pack(read_pack(path), journal) == 0
    dummy = Dummy({})
    found = attempts(tmp_path)
    assert found.keys() == {j["key"] for j in made}
    for job in made:
        result = found[job["key"]].result
        assert result is not None
        assert found[job["key"]].started == 1
        assert result["predictions"] == dummy(job).predictions.hash
        assert result["cost"]["processes"] == 2
        assert result["columns"] == {**job["columns"], "baseline": job["baseline"]}
    assert helpers(but=others) == []
    assert left(os.getpid()) == before


def test_a_killed_process_fails_the_cell_alone(
    tmp_path: Path, others: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a worker that is killed, it is tried once more; another process is started for that."""
    monkeypatch.setenv("BLIP2SWEEP_DUMMY", json.dumps({"seconds": 0.4}))
    (made, path), before = dummies(tmp_path), left(os.getpid())
    killed: list[int] = []
    send = Helper.send

    def send_and_kill(helper: Helper, job: CellJob, batch_size: int | None) -> None:
        """Kill the process of the first two shares. Before its share it would only be started again."""
        send(helper, job, batch_size)
        if len(killed) < 2:
            (process,) = helpers(but=[*others, *killed])
            killed.append(process.pid)
            process.kill()

    monkeypatch.setattr(Helper, "send", send_and_kill)
    with closing(Journal(tmp_path)) as journal:
        code = run_pack(read_pack(path), journal)
    assert len(set(killed)) == 2
    failed = lines(tmp_path, "failed")
    assert [(f["kind"], f["fatal"], f["signal"]) for f in failed] == [("crash", True, 9)] * 2
    assert "process 1 of the cell was killed by signal 9 (out of host memory?)" in failed[0]["error"]
    found = attempts(tmp_path)
    done = {key for key, a in found.items() if a.result}
    assert code == (0 if done == found.keys() else 3)
    assert len(done) >= len(made) - 1
    assert helpers(but=others) == []
    assert left(os.getpid()) == before


def test_nothing_outlives_a_killed_worker_and_its_pack_goes_on(tmp_path: Path) -> None:
    made, path = dummies(tmp_path)
    supervisor = Supervisor(path, {**os.environ, "BLIP2SWEEP_DUMMY": json.dumps({"seconds": 0.5})})
    with running(supervisor) as ended:
        pid = wait_until(lambda: lines(tmp_path, "started"))[0]["pid"]
        (orphan,) = helpers(pid)
        os.kill(pid, signal.SIGKILL)
        orphan.wait(timeout=10)
        assert wait_until(lambda: ended) == [0]
    assert left(pid) == []
    found = attempts(tmp_path)
    assert all(a.result for a in found.values())
    assert sorted(a.started for a in found.values()) == [1] * (len(made) - 1) + [2]
    assert lines(tmp_path, "failed")[0]["kind"] == "crash"


def test_a_worker_that_is_stopped_ends_its_processes_at_once(tmp_path: Path) -> None:
    _, path = dummies(tmp_path)
    supervisor = Supervisor(path, {**os.environ, "BLIP2SWEEP_DUMMY": json.dumps({"seconds": 30})})
    with running(supervisor) as ended:
        pid = wait_until(lambda: lines(tmp_path, "started"))[0]["pid"]
        (helper,) = helpers(pid)
        for signum in (signal.SIGUSR2, signal.SIGINT, signal.SIGTERM):  # as every process of a job gets them
            helper.send_signal(signum)
        time.sleep(0.2)
        assert helper.is_running()
        supervisor.stop()
        helper.wait(timeout=10)
        assert wait_until(lambda: ended, 25) == [4]
    assert [x["reason"] for x in lines(tmp_path, "requeued")] == ["preempted"]
    assert left(pid) == []


def test_a_packed_cell_is_run_by_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row says how fast one process is."""
    (job, *_) = [c.job() for c in plan("backend=dummy", *SEVERAL, "task.limit=8").todo]
    packed = {**job, "recipe": [{"packed": "cpu"}]}
    processes = Processes({"processes": 2, "backend": {"name": "dummy"}})
    try:
        processes.expect([job, packed])
        found = [processes(packed), processes(job)]
    finally:
        processes.close()
    assert ["processes" in answered.cost for answered in found] == [False, True]
    assert found[0].predictions.hash == found[1].predictions.hash


# ---- how answers are joined


def answered(ids: list[int], **cost: Any) -> Answered:
    return Answered(Predictions(id=[*ids], image_id=[*ids], text=[f"text {i}" for i in ids]), cost, 3)


def test_costs_are_those_of_the_slowest_process_and_counts_are_added() -> None:
    fast = {"seconds": 1.0, "seconds_vision": 0.5, "hits_vision_blocks": 2, "hits_language": 3, "hits_disk": 1,
            "images_per_second": 4.0, "batch_size": 8, "oom_halvings": 1, "device": "a", "peak_memory_bytes": 5,
            "hits_weights": 7, "hits_bridge": 0.5, "gflops_vision": 3.0, "tokens_written": 9.0}  # fmt: skip
    slow = {"seconds": 2.0, "seconds_vision": 0.2, "hits_vision_blocks": 4, "hits_language": 4, "images_per_second": 1.0,
            "batch_size": 4, "oom_halvings": 0, "device": "a", "peak_memory_bytes": 9, "hits_weights": 6,
            "hits_bridge": 0.0, "gflops_vision": 3.0, "tokens_written": 12.0}  # fmt: skip
    assert joined_cost([answered([1, 2, 5, 6], **fast), answered([3, 4], **slow)]) == {
        "seconds": 2.0, "seconds_vision": 0.5, "hits_vision_blocks": 3.0, "hits_language": 7, "hits_disk": 1,
        "images_per_second": 3.0, "batch_size": 4, "oom_halvings": 1, "device": "a", "peak_memory_bytes": 9,
        "hits_weights": 7, "hits_bridge": 0.25, "gflops_vision": 3.0, "tokens_written": 10.0,
    }  # fmt: skip


def test_what_cannot_be_one_cell_is_not_joined() -> None:
    (job,) = jobs("part=none", limit=4)
    one, other = answered([1], seconds=1.0), answered([1], seconds=1.0)
    with pytest.raises(ValueError, match="answered the same samples"):
        Predictions.joined([one.predictions, other.predictions], [1, 2])
    with pytest.raises(ValueError, match="or unknown ones"):
        Predictions.joined([one.predictions], [2])
    with pytest.raises(RuntimeError, match="changed 3, 4 layers"):
        Joiner()(job, [one, replace(other, layers_changed=4)], 2)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shares_are_of_whole_images_and_alike(count: int) -> None:
    """All questions of an image are in one share, and each share knows what its images have to hold."""
    data = planned_task(jobs("part=none", "task=shapes_vqa", limit=20)[0]["task"])
    shares = [data.share(rank, count) for rank in range(count)]
    assert sorted(s.id for share in shares for s in share.samples) == sorted(s.id for s in data.samples)
    images = [image for share in shares for image in share.images]
    assert len(images) == len({*images}) == len(data.images)
    sizes = [len(share.images) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    assert all(share.planned for share in shares)
