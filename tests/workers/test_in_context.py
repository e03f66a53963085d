"""Cells that ask a chat model: what they wait for, what they share, what they leave."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.backends.backend import Answered
from blip2sweep.backends.dummy import Dummy
from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.chat import client as clients
from blip2sweep.chat.asking import Asking
from blip2sweep.chat.client import Client
from blip2sweep.chat.replies import Replies
from blip2sweep.commands.ask import ask
from blip2sweep.commands.sweeps import retry
from blip2sweep.errors import SweepFailed, UserError
from blip2sweep.planning.packs import make_pack
from blip2sweep.results.latest import read_table
from blip2sweep.results.ledger import Attempts, Journal, Ledger
from blip2sweep.results.predictions import read_predictions, stem
from blip2sweep.results.sweeps import Sweep, find_sweep
from blip2sweep.running.status import sweep_status
from blip2sweep.tasks import Generation, planned_task
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.tasks.scenes import write_split
from blip2sweep.wire.chat import Endpoint
from blip2sweep.wire.lines import WAITING
from blip2sweep.workers import in_context, rounds
from blip2sweep.workers.in_context import run_in_context
from blip2sweep.workers.rounds import round_job
from blip2sweep.workers.run_cell import run_cell
from blip2sweep.workers.signals import Stop
from blip2sweep.workers.worker import run_pack
from tests.chat.server import Body, Fails, serving
from tests.chat.server import Endpoint as Server
from tests.composing import plan
from tests.in_process import own_text
from tests.ledgers import launched

SECRET = "sk-a-secret-that-nobody-writes"
WORDS = ("task=shapes_vqa", "task.kind=incontext", "chat=local", "chat.model=m", "task.limit=9")
LIST = "1. What color is it?\n2. What shape is it?"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)


def reply(body: Body, number: int) -> object:
    """A chat model of few words, which refuses every third question."""
    said = str(body["messages"][-1]["content"])
    return LIST if "List the three" in said else ("unknown", "Blue", "no (I guess)")[len(said) % 3]


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(reply) as found:
        yield found


def jobs(*words: str, backend: str = "dummy") -> list[dict[str, Any]]:
    return [c.job() for c in plan(*WORDS, f"backend={backend}", *words).cells.values()]


def endpoint(server: Server | None, online: bool = False) -> Endpoint:
    return {
        "base_url": server.url if server else None,
        "online": online,
        "retries": 1,
        "concurrency": 2,
        "timeout": 5.0,
    }


def work(folder: Path, these: list[dict[str, Any]], told: Endpoint, run: str = "r") -> list[str | None]:
    """The cells of a launch as a worker leaves them, without scores. Returns the names of their predictions."""
    pack = make_pack(these, "first", run, folder, {"chat": told})  # type: ignore[arg-type]
    settings, ledger, dummy = pack["settings"], Ledger(folder), Dummy({})
    run_one = partial(run_in_context, ask=dummy, output_dir=folder, settings=settings)
    with closing(Journal(folder)) as journal:
        return [run_cell(job, run_one, journal, pack, Stop(), ledger) for job in pack["cells"]]


def attempts(folder: Path, key: str) -> Attempts:
    return Ledger(folder).refresh().attempts[key]


def states(folder: Path, sweep: Sweep) -> list[str]:
    status = sweep_status(folder, find_sweep(folder, sweep.name), Ledger(folder, only=sweep.keys, brief=True))
    return [status.states[k] for k in sweep.keys]


def predictions(folder: Path, key: str) -> Predictions:
    result = attempts(folder, key).result
    assert result is not None
    assert result["predictions"] is not None
    return read_predictions(folder, stem(key, result["predictions"]))


@pytest.fixture
def asked_model(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The rounds that back ends were asked for, in order."""
    found: list[str] = []
    own = Dummy.__call__

    def call(self: Dummy, job: Any, batch_size: int | None = None) -> Answered:
        found.append(job["task"].get("round", {}).get("name", "whole"))
        return own(self, job, batch_size)

    monkeypatch.setattr(Dummy, "__call__", call)
    return found


# ---- waiting, asking, going on


def test_a_cell_waits_and_is_finished_where_there_is_a_network(
    tmp_path: Path, server: Server, asked_model: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    these = jobs("quant.bits=3", "part=vit")
    sweep = launched(tmp_path, these, settings={"chat": endpoint(server)})
    assert work(tmp_path, these, endpoint(server)) == [None, None]
    assert states(tmp_path, sweep) == [WAITING, WAITING]
    assert asked_model == ["answers", "captions"] * 2
    assert server.requests == []
    waits = attempts(tmp_path, these[0]["key"]).waits
    assert waits
    assert 0 < waits["requests"] <= 9
    assert attempts(tmp_path, these[0]["key"]).open == []  # so that earlier versions take it for requeued
    ask(tmp_path, "first", None)
    assert states(tmp_path, sweep) == ["done", "done"]
    assert len(asked_model) == 4
    bodies = [json.dumps(body) for body in server.requests]
    assert len(bodies) == len({*bodies})  # a sweep asks once
    table = read_table(tmp_path / "sweeps" / "first" / "table.parquet")
    assert list(table["chat_model"]) == ["m", "m"]
    assert list(table["chat_requests"]) == [9, 9]
    assert (table["chat_requests"] - table["chat_cache_hits"]).sum() == len(bodies)
    assert (table["chat_prompt_tokens"] > 900).all()
    assert table["vqa_accuracy"].notna().all()
    found = predictions(tmp_path, these[0]["key"])
    refused = sum(text == "unknown" for text in found.text or ())
    assert table["fallback_rate"][0] == pytest.approx(refused / 9)
    assert found.answer
    assert (found.context or [])[0][0].startswith("a photo of ")
    ask(tmp_path, "first", None)
    assert "nothing to ask" in capsys.readouterr().err


def test_nothing_is_computed_twice_at_any_stop(tmp_path: Path, server: Server, asked_model: list[str]) -> None:
    these = jobs("part=none", "chat.variant=questions")
    sweep = launched(tmp_path, these, settings={"chat": endpoint(server)})
    work(tmp_path, these, endpoint(server))
    assert asked_model == ["answers"]
    ask(tmp_path, "first", None)
    assert states(tmp_path, sweep) == [WAITING]
    work(tmp_path, these, endpoint(server), run="again")
    assert asked_model == ["answers", "asked"]
    before = len(server.requests)
    ask(tmp_path, "first", None)
    assert states(tmp_path, sweep) == ["done"]
    assert asked_model == ["answers", "asked"]
    assert len(server.requests) > before
    summary = [m["content"] for m in server.requests[-1]["messages"]]
    assert [m for m in summary if m.startswith("We asked: ")] == [f"We asked: {q[3:]}" for q in LIST.split("\n")]
    assert attempts(tmp_path, these[0]["key"]).waits is None


def test_the_own_answer_is_told_as_planned(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blip2sweep.planning.chosen_chat.lemmatiser_version", lambda _: "tagger-1")
    monkeypatch.setattr(in_context, "lemmatiser_version", lambda _: "tagger-1")
    monkeypatch.setattr(in_context, "lemmatised", lambda text: f"lemma of {text}")
    these = jobs("part=none", "chat.variant=questions", "chat.lemmatize=spacy")
    work(tmp_path, these, endpoint(server, online=True))
    own = predictions(tmp_path, these[0]["key"]).answer or []
    told = [str(body["messages"][1]["content"]) for body in server.requests if len(body["messages"]) > 2]
    assert told
    assert all("question answering model was 'lemma of " in text for text in told)
    assert not any(text.startswith("lemma of ") for text in own)
    monkeypatch.setattr(in_context, "lemmatiser_version", lambda _: "tagger-2")
    with pytest.raises(UserError, match="tagger-2 here, planned with tagger-1"):
        in_context.lemmatiser(these[0]["chat"]["recipe"])


def test_asking_needs_no_model_and_no_worker_to_begin(tmp_path: Path, server: Server, asked_model: list[str]) -> None:
    these = jobs("part=none", "chat.variant=questions")
    launched(tmp_path, these, settings={"chat": endpoint(server)})
    ask(tmp_path, "first", None)
    assert len(server.requests) == len({json.dumps(b) for b in server.requests}) > 0
    assert asked_model == []


def test_retry_runs_what_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    these = jobs("part=none")
    sweep = launched(tmp_path, these, settings={"chat": endpoint(None)})
    work(tmp_path, these, endpoint(None))
    again: list[str] = []
    monkeypatch.setattr("blip2sweep.commands.sweeps.relaunch", lambda run, *_: again.extend(j["key"] for j in run))
    retry(tmp_path, "first", None, False)
    assert again == sweep.keys


def test_a_network_on_the_node_needs_no_second_step(tmp_path: Path, server: Server) -> None:
    these = jobs("part=none", "chat.variant=noun")
    pack = make_pack(these, "first", "r", tmp_path, {"chat": endpoint(server, online=True)})  # type: ignore[arg-type]
    with closing(Journal(tmp_path)) as journal:
        assert run_pack(pack, journal) == 0
    found = predictions(tmp_path, these[0]["key"])
    noun = (found.context or [])[0][1]
    assert noun.startswith(("the unknown can be described as ", "the Blue can ", "the no  can "))
    assert len(found.id) == 9


def test_cells_with_another_chat_model_share_what_the_model_said(
    tmp_path: Path, server: Server, asked_model: list[str]
) -> None:
    for words in (("part=none",), ("part=none", "chat.model=other"), ("part=none", "chat.shots=0"), ("part=none", "chat.variant=noun")):  # fmt: skip
        assert work(tmp_path, jobs(*words), endpoint(server, online=True)) != [None]
    assert asked_model == ["answers", "captions", "described"]


def test_a_damaged_round_is_computed_again(tmp_path: Path, server: Server, asked_model: list[str]) -> None:
    these = jobs("part=none")
    work(tmp_path, these, endpoint(None))
    path = tmp_path.joinpath(*rounds.FOLDER) / f"{round_job(these[0], 'captions')['key']}.json"  # type: ignore[arg-type]
    path.write_text(path.read_text()[:-9])
    work(tmp_path, these, endpoint(server, online=True), run="again")
    assert asked_model == ["answers", "captions", "captions"]


def test_an_interrupt_loses_no_reply(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    these = jobs("part=none")
    sweep = launched(tmp_path, these, settings={"chat": {**endpoint(server), "concurrency": 1}})
    work(tmp_path, these, endpoint(server))
    own = Client.__call__

    def until_the_third(self: Client, request: Any) -> Any:
        if len(server.requests) == 3:
            raise KeyboardInterrupt
        return own(self, request)

    monkeypatch.setattr(Client, "__call__", until_the_third)
    with pytest.raises(SystemExit) as ended:
        ask(tmp_path, "first", None)
    assert ended.value.code == 130
    assert "3 replies are kept" in capsys.readouterr().err
    monkeypatch.setattr(Client, "__call__", own)
    ask(tmp_path, "first", None)
    assert states(tmp_path, sweep) == ["done"]
    assert len(server.requests) == len({json.dumps(body) for body in server.requests})


# ---- what fails


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (lambda body, number: Fails(500), "HTTP 500, 2 times"),
        (lambda body, number: Fails(raw=b"rubbish"), "no chat completion (rubbish), 2 times"),
        (lambda body, number: Fails(401), "HTTP 401: the key is refused"),
    ],
)
def test_an_endpoint_that_gives_nothing_is_a_failed_cell_of_its_own_kind(
    tmp_path: Path, script: Any, said: str
) -> None:
    these = jobs("part=none")
    sweep = launched(tmp_path, these)
    with serving(script) as server:
        assert work(tmp_path, these, endpoint(server, online=True)) == [None]
        failure = attempts(tmp_path, these[0]["key"]).last_failure
        assert failure
        assert (failure["kind"], states(tmp_path, sweep)) == ("chat", ["failed"])
        assert said in failure["error"]
        launched(tmp_path, these, settings={"chat": endpoint(server)})
        with pytest.raises(SweepFailed, match="0 replies are kept, and the same command goes on"):
            ask(tmp_path, "first", None)


def test_a_key_is_nowhere(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    these = jobs("part=none")
    echoes = lambda body, number: Fails(401, SECRET.encode()) if number == 0 else Fails(400, SECRET.encode())  # noqa: E731
    raw = json.dumps({"headers": {"Authorization": f"Bearer {SECRET}"}}).encode()
    with serving(echoes) as bad, serving(reply) as good, serving(lambda body, number: Fails(raw=raw)) as repeats:
        for run, server in (("a", bad), ("b", bad), ("r", repeats), ("c", good)):
            work(tmp_path, these, endpoint(server, online=True), run=run)
        assert good.keys[0] == f"Bearer {SECRET}"
    launched(tmp_path, these, settings={"chat": endpoint(good)})
    ask(tmp_path, "first", None)
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(files) > 10
    assert [p for p in files if SECRET.encode() in p.read_bytes()] == []
    assert SECRET not in "".join(capfd.readouterr())


def test_asking_refuses_what_it_cannot_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    these = jobs("part=none")
    launched(tmp_path, these, settings={"chat": endpoint(None)})
    with pytest.raises(UserError, match=r"chat\.base_url: not set"):
        ask(tmp_path, "first", None)
    with pytest.raises(UserError, match=r"chat\.base_url=nowhere: no address"):
        ask(tmp_path, "first", "nowhere")
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match="OPENAI_API_KEY: not set"):
        ask(tmp_path, "first", "https://api.openai.com/v1")
    monkeypatch.setattr("blip2sweep.commands.ask.owner", lambda *_: "bob")
    with pytest.raises(UserError, match=r"is bob's, .*where your key would go"):
        ask(tmp_path, "first", None)
    launched(tmp_path, [c.job() for c in plan("task=shapes_vqa", "part=none").cells.values()], "plain")  # type: ignore[misc]
    with pytest.raises(UserError, match="none of its cells asks a chat model"):
        ask(tmp_path, "plain", None)


def test_costs_are_those_of_what_was_asked_for_the_cell() -> None:
    usage = in_context.Usage(3, 1, 300, 30, 200, 20)
    found = in_context.spent(usage, {"price_in": 0.5, "price_out": 1.5})
    assert found["chat_cost"] == pytest.approx((200 * 0.5 + 20 * 1.5) / 1e6)
    assert found["chat_hit_rate"] == pytest.approx(1 / 3)
    assert "chat_cost" not in in_context.spent(usage, {})


# ---- with a model


def test_what_the_chat_model_is_told_is_what_transformers_itself_generates(tmp_path: Path, server: Server) -> None:
    these = jobs("part=none", "generation.num_beams=2", backend="torch")
    backend = TorchBackend({"device": "cpu", "threads": 1})
    made = [round_job(these[0], name) for name in ("answers", "captions")]  # type: ignore[arg-type]
    backend.expect(made)
    own, captions = (backend(job) for job in made)
    loaded = backend.quantized(made[0])
    data = backend.task(made[0])
    told = Generation("a photo of", 5, 20, None, 1.5, repetition_penalty=2.0)
    assert captions.predictions.text == [own_text(loaded, p, "a photo of", told) for p in data.images.values()]
    assert captions.predictions.id == [*data.images]
    assert captions.cost["hits_bridge"] == len(data.images)  # no picture is encoded twice
    plain = plan("task=shapes_vqa", "task.limit=9", "part=none", "generation.num_beams=2").cells.values()
    (alone,) = (backend(cell.job()) for cell in plain)
    assert own.predictions == alone.predictions


@pytest.mark.parametrize(("variant", "requests"), [("caption", 1), ("questions", 2), ("noun", 2)])
def test_pictures_that_cannot_be_read_leave_the_other_answers(
    tmp_path: Path, server: Server, variant: str, requests: int
) -> None:
    write_split(tmp_path / "data", "val2014", 4, seed=1)
    words = ("part=none", f"task.data_dir={tmp_path / 'data'}", "task.limit=null", "task.on_bad_image=skip")
    words = (*words, f"chat.variant={variant}", "generation.num_beams=1")
    bad = sorted((tmp_path / "data" / "val2014").iterdir())[1]
    bad.write_bytes(b"no picture")
    (job,) = jobs(*words, backend="torch")
    backend = TorchBackend({"device": "cpu", "threads": 1})
    asking = Asking(Replies(tmp_path), job["key"], Client(endpoint(server)))
    found = in_context.in_context(job, backend, tmp_path, asking, {})  # type: ignore[arg-type]
    samples = [s for s in planned_task(job["task"]).samples if s.image != bad]
    assert found.predictions.id == [s.id for s in samples]
    assert found.cost["bad_images"] == 1
    assert found.cost["chat_requests"] == requests * len(samples)  # none about the picture
    told = [texts[0] for texts in found.predictions.context or ()]
    assert all(len(text) > len("a photo of ") for text in told)
