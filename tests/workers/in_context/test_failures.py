"""Cells that ask a chat model: what fails, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.commands.ask import ask
from blip2sweep.errors import SweepFailed, UserError
from tests.chat.server import Fails, serving
from tests.composing import plan
from tests.ledgers import launched
from tests.workers.in_context.cells import (
    SECRET,
    attempts,
    endpoint,
    jobs,
    reply,
    states,
    work,
)


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
