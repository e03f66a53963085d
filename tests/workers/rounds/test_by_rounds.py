"""Cells that are run in rounds: where they stop, what is left when a worker ends between rounds, and where they go on."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from blip2sweep import files
from blip2sweep.backends.backend import Answered
from blip2sweep.backends.dummy import Dummy
from blip2sweep.machine.stopping import Stopped
from blip2sweep.results import prefixes
from blip2sweep.results.look_process import LookProcess
from blip2sweep.results.predictions import stem
from blip2sweep.wire.stopping import LookAnswer, LookRequest, unknown
from blip2sweep.workers.by_rounds import NOT_THERE
from blip2sweep.workers.signals import Stop
from tests.workers.rounds.work import OF, Work, predictions


def places(these: list[Any]) -> list[str | None]:
    return [job["task"].get("places") for job in these]


def test_a_cell_stops_where_enough_is_known_and_goes_on_to_the_whole(tmp_path: Path, cells: dict[str, Any]) -> None:
    work = Work(tmp_path, cells)
    assert "stopped" not in work("base")
    assert work.backend.asked == ["all"]
    early = work("same")
    assert early["stopped"] == {"images": 128, "of": OF, "reason": "known to ±5 %", "stop": "known", "margin": 0.05}
    assert work.backend.asked[1:] == ["0-64", "64-96,96-128"]  # 96 images are not enough for cells that are equal
    assert work.rounds.look.looked == [[64], [96, 128]]
    assert early["cost"]["images_computed"] == 128
    known, all_of_it = predictions(work, early), Dummy({})(cells["same"]).predictions
    assert len({*known.image_id}) == 128
    assert [i for i in all_of_it.id if i in {*known.id}] == known.id  # the task's order
    assert work.kept == []
    # Who asks for more goes on from there; the union is the whole, to the bit.
    closer = Work(tmp_path, cells, margin=0.04)
    assert places(closer.rounds.jobs_of(cells["same"])) == ["128-192", "192-200"]
    assert closer("same")["stopped"]["images"] == 192
    assert closer.backend.asked == ["128-192"]
    assert closer.said == ["goes on after 128 images"]
    rest = Work(tmp_path, cells, stop=None)
    assert places(rest.rounds.jobs_of(cells["same"])) == ["192-200"]
    result = rest("same")
    assert "stopped" not in result
    assert rest.backend.asked == ["192-200"]
    assert result["predictions"] == all_of_it.hash
    assert result["cost"]["seconds"] > 0


@pytest.mark.parametrize("stop", [None, "known"])
def test_a_cell_whose_first_images_were_not_measured_as_is_asked_for_now_runs_them_again(
    tmp_path: Path, cells: dict[str, Any], stop: str | None
) -> None:
    """A noise floor of the rest alone would be dropped, and how far blocks moved is told with the first images."""
    calibrated = {**cells, "same": {**cells["same"], "calibration": {"samples": 8}}}
    early = Work(tmp_path, calibrated)
    early("base")
    assert early("same")["stopped"]["images"] == 128
    for asked in ("noise_floor", "propagation"):
        work = Work(tmp_path, calibrated, stop, margin=0.5)  # by which it would stop after 64 images
        work.settings[asked] = True
        first = ["all"] if stop is None else ["0-64,64-96,96-128"]  # before it had as many, it would not count
        work.rounds(calibrated["same"], work.backend)
        assert work.backend.asked == first
        assert work.said == ["runs its first 128 images again, which were not measured as is asked for now"]
        work.rounds.committed(calibrated["same"])  # what a commit removes


def test_a_cell_goes_on_where_nothing_more_can_be_measured(tmp_path: Path, cells: dict[str, Any]) -> None:
    """Without calibration there is no floor, and rounds that were kept may have the distances."""
    work = Work(tmp_path, cells)
    work("base")
    early = work("same")
    rest = Work(tmp_path, cells, stop=None)
    rest.settings["noise_floor"] = True
    rest.rounds(cells["same"], rest.backend)
    assert rest.backend.asked == ["128-200"]
    (tmp_path / "propagation").mkdir()
    name = stem(early["key"], early["predictions"])
    (tmp_path / "propagation" / f"{name}.json").write_text('[{"block": 0}]')
    moved = Work(tmp_path, cells, stop=None)
    moved.settings["propagation"] = True
    moved.rounds.committed(cells["same"])
    found = moved.rounds(cells["same"], moved.backend)
    assert moved.backend.asked == ["128-200"]
    assert found.artifacts["propagation"] == [{"block": 0}]


def test_references_are_read_ahead_for_the_first_cell_that_may_stop(tmp_path: Path, cells: dict[str, Any]) -> None:
    work = Work(tmp_path, cells)
    work.rounds.expect(cells.values())
    assert work.rounds.look.warmed == cells["same"]["task"]  # type: ignore[attr-defined]
    assert places(work.rounds.jobs_of(cells["other"])) == ["0-64", "64-96", "96-128", "128-192", "192-200"]
    assert work.rounds.jobs_of(cells["base"]) == [cells["base"]]


def test_a_cell_that_is_never_known_is_the_whole_one(tmp_path: Path, cells: dict[str, Any]) -> None:
    """Two rounds: no look is likely to tell. All of them are taken."""
    work = Work(tmp_path, cells)
    work("base")
    result = work("other")
    assert "stopped" not in result
    assert work.backend.asked[1:] == ["0-64", "64-96,96-128,128-192,192-200"]
    assert work.rounds.look.looked == [[64], [96, 128, 192]]
    assert result["cost"]["images_computed"] == OF
    assert result["predictions"] == Dummy({})(cells["other"]).predictions.hash
    assert work.kept == []


def test_nothing_changes_where_no_rule_is_asked_for(tmp_path: Path, cells: dict[str, Any]) -> None:
    work = Work(tmp_path, cells, stop=None)
    work("base")
    assert work("same")["predictions"] == Dummy({})(cells["same"]).predictions.hash
    assert work.backend.asked == ["all", "all"]
    assert not (tmp_path / "cache").exists()


# ---- what goes wrong


def test_a_cell_without_a_baseline_goes_on_and_that_is_said(tmp_path: Path, cells: dict[str, Any]) -> None:
    work = Work(tmp_path, cells)
    assert "stopped" not in work("same")
    assert {*work.said} == {NOT_THERE}
    assert work.rounds.look.looked == []


def test_a_baseline_that_comes_late_is_compared_with_from_then_on(tmp_path: Path, cells: dict[str, Any]) -> None:
    work, other = Work(tmp_path, cells), Work(tmp_path, cells)
    ask = work.backend

    def late(job: Any, batch_size: int | None = None) -> Answered:
        if job["task"]["places"] == "128-192":
            other("base")
        return ask(job, batch_size)

    found = work.rounds(cells["same"], late)
    assert found.stopped is not None
    assert found.stopped["images"] == 192


def test_a_baseline_that_cannot_be_compared_costs_no_cell(tmp_path: Path, cells: dict[str, Any]) -> None:
    work = Work(tmp_path, cells)
    base = work("base")
    (tmp_path / "predictions" / f"{stem(base['key'], base['predictions'])}.json").write_text("[]")
    assert "stopped" not in work("same")
    assert {*work.said} == {NOT_THERE}
    assert "stopped" not in work("base")
    work.rounds.look.looks.output_dir = tmp_path / "elsewhere"
    assert "stopped" not in work("other")
    assert any(text.startswith("some cells went on because they could not be compared: ") for text in work.said)


@pytest.mark.parametrize("end", [Stopped(), KeyboardInterrupt(), RuntimeError("out of luck")])
def test_a_worker_that_ends_between_rounds_loses_the_round_in_hand_alone(
    tmp_path: Path, cells: dict[str, Any], end: BaseException
) -> None:
    work = Work(tmp_path, cells)
    work("base")
    work.backend.at = {"64-96,96-128": end}
    try:
        assert work("same") is None
    except BaseException as error:
        assert error is end  # noqa: PT017
    assert work.kept == [cells["same"]["key"]]
    again = Work(tmp_path, cells)
    assert again("same")["stopped"]["images"] == 128
    assert again.backend.asked == ["64-96,96-128"]
    assert again.rounds.look.looked == [[64], [96, 128]]  # the look that nobody may have seen is taken again
    assert again.kept == []


def test_a_notice_of_preemption_is_heeded_between_rounds(tmp_path: Path, cells: dict[str, Any]) -> None:
    work, stop = Work(tmp_path, cells), Stop()
    work("base")
    stop.reason = "timeout"
    with pytest.raises(Stopped) as told:
        work("other", stop=stop)
    assert told.value.goes_on
    assert work.backend.asked[1:] == ["0-64"]
    assert work.kept == [cells["other"]["key"]]
    (ended,) = [e for e in events(tmp_path) if e["event"] in ("requeued", "failed")]
    assert (ended["event"], ended["reason"]) == ("requeued", "timeout")


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(x) for p in (folder / "journals").glob("*") for x in p.read_text().splitlines()]


def test_a_damaged_round_is_named_and_computed_again(
    tmp_path: Path, cells: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    work = Work(tmp_path, cells)
    work("base")
    work.backend.at = {"64-96,96-128": RuntimeError("told to fail")}
    work("same")
    (path,) = tmp_path.joinpath(*prefixes.FOLDER).iterdir()
    path.write_bytes(path.read_bytes()[:-200])
    again = Work(tmp_path, cells)
    assert again("same")["stopped"]["images"] == 128
    assert again.backend.asked[0] == "0-64"
    assert f"{path}: damaged" in capsys.readouterr().err


def test_rounds_of_other_images_than_todays_order_has_are_not_used(tmp_path: Path, cells: dict[str, Any]) -> None:
    work = Work(tmp_path, cells)
    work("base")
    other = Dummy({})({**cells["same"], "task": {**cells["same"]["task"], "places": "10-74"}})
    known = prefixes.Prefix(64, other.predictions, other.cost, 0, {})
    prefixes.write_prefix(tmp_path, cells["same"]["key"], known)
    assert work("same")["stopped"]["images"] == 128
    assert work.backend.asked[1:] == ["0-64", "64-96,96-128"]


def test_a_full_disk_fails_the_cell_and_leaves_nothing_half_written(
    tmp_path: Path, cells: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(tmp_path, cells)
    work("base")

    replace = Path.replace

    def full(path: Path, target: Path) -> Path:
        if "prefixes" in target.parts:
            raise OSError(28, "No space left on device")
        return replace(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(files.Path, "replace", full)
        assert work("same") is None
    assert [e["kind"] for e in events(tmp_path) if e["event"] == "failed"] == ["disk_full"]
    assert work.backend.asked[1:] == ["0-64"]
    assert [*tmp_path.rglob("*.tmp")] == work.kept == []
    assert work("same")["stopped"]["images"] == 128


def test_a_shorter_result_replaces_no_longer_one(tmp_path: Path, cells: dict[str, Any]) -> None:
    """Two workers at once: one commits the whole cell while the other one is about to stop it."""
    work, whole = Work(tmp_path, cells), Work(tmp_path, cells, stop=None)
    work("base")
    ask = work.backend

    def overtaken(job: Any, batch_size: int | None = None) -> Answered:
        if job["task"]["places"] == "64-96,96-128":
            whole("same")
        return ask(job, batch_size)

    work.backend = overtaken  # type: ignore[assignment]
    result = work("same")
    assert "stopped" not in result
    lines = [e for e in events(tmp_path) if e["event"] == "result" and e["key"] == cells["same"]["key"]]
    assert ["stopped" in e for e in sorted(lines, key=lambda e: e["time"])] == [False, True]


# ---- the process that looks


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, cells: dict[str, Any]) -> tuple[Path, LookRequest]:
    """A request about the cell that answers anything, and the folder of its baseline."""
    folder = tmp_path_factory.mktemp("looks")
    base = Work(folder, cells)("base")
    said = Dummy({})(cells["other"]).predictions
    request: LookRequest = {
        "task": cells["other"]["task"], "predictions": {k: [*v] for k, v in said.columns.items()},
        "baseline": stem(base["key"], base["predictions"]), "stop": "verdict", "margin": 0.9, "looks": [64, 200], "coming": [],
    }  # fmt: skip
    return folder, request


def answered(look: LookProcess, request: LookRequest) -> LookAnswer:
    found = look.answer(look.ask(request))
    return {k: v for k, v in found.items() if k != "number"}  # type: ignore[return-value]


@pytest.mark.thorough
def test_the_process_answers_dies_and_is_given_up(asked: tuple[Path, LookRequest]) -> None:
    folder, request = asked
    look = LookProcess(folder)
    look.warm(request["task"])
    assert answered(look, request) == {"reason": "within 90 %", "images": 64, "ahead": None, "error": None}
    assert answered(look, {**request, "baseline": "0-0"})["error"] is not None  # and lives
    several = [look.ask({**request, "looks": own}) for own in ([200], [64], [64, 200])]
    assert [look.answer(several[i])["images"] for i in (0, 2)] == [200, 64]  # nobody wants that of the second
    assert (look.given_up, look._died) == ("", 0)
    assert look._process is not None
    os.kill(look._process.pid, signal.SIGSTOP)
    several = [look.ask(request) for _ in range(3)]
    os.kill(look._process.pid, signal.SIGKILL)
    lost = unknown("the process that looks at cells: it ended without an answer")
    assert look.answer(several[0]) == lost
    assert [look.answer(n)["images"] for n in several[1:]] == [64, 64]  # the next process is asked again
    assert (look.given_up, look._died) == ("", 1)
    look.warm(request["task"])
    os.kill(look._process.pid, signal.SIGSTOP)
    look.seconds = 0.4
    assert answered(look, request)["error"] == "the process that looks at cells: no answer within 0 s"
    assert answered(look, request)["error"] == look.given_up != ""
    assert look._process is None
