"""Cells that ask a chat model: what they wait for, what they share, what they leave."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.chat.client import Client
from blip2sweep.commands.ask import ask
from blip2sweep.commands.sweeps import retry
from blip2sweep.errors import UserError
from blip2sweep.planning.packs import make_pack
from blip2sweep.results.latest import read_table
from blip2sweep.results.ledger import Journal
from blip2sweep.wire.lines import WAITING
from blip2sweep.workers import in_context, rounds
from blip2sweep.workers.rounds import round_job
from blip2sweep.workers.worker import run_pack
from tests.chat.server import Endpoint as Server
from tests.ledgers import launched
from tests.workers.in_context.cells import (
    LIST,
    attempts,
    endpoint,
    jobs,
    predictions,
    states,
    work,
)


@pytest.mark.thorough
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


@pytest.mark.thorough
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


@pytest.mark.thorough
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


@pytest.mark.thorough
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
