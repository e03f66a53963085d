"""Requests against a server that fails as servers do."""

from __future__ import annotations

import json
import socket
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.chat import client as clients
from blip2sweep.chat.client import ChatError, Client, retry_after, waiting
from blip2sweep.chat.recipe import check_url
from blip2sweep.chat.replies import Reply
from blip2sweep.errors import UserError
from tests.chat.asking import QUICK, SECRET, asking, request
from tests.chat.server import Body, Fails, Script, completion, serving


def first_fails(*fails: Fails) -> Script:
    return lambda body, number: fails[number] if number < len(fails) else "a dog"


def ask(script: Script, **more: object) -> tuple[Reply, int]:
    with serving(script) as server:
        reply, _ = Client({**QUICK, "base_url": server.url, **more})(request())  # type: ignore[typeddict-item]
        return reply, len(server.requests)


def test_a_reply_has_its_text_and_its_tokens() -> None:
    with serving(lambda body, number: "a dog") as server:
        reply, told = Client({**QUICK, "base_url": f"{server.url}/"})(request(temperature=0.7))
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens) == ("a dog", 3, 2)
    assert told["answered_by"] == "m"
    assert server.keys == [f"Bearer {SECRET}"]
    assert server.requests[0] == {
        "model": "m", "messages": [{"role": "user", "content": "What is it?"}], "temperature": 0.7, "max_tokens": 5, "seed": 3,
    }  # fmt: skip


PASSING = {
    "too many requests": Fails(429, headers={"Retry-After": "0"}),
    "an error of the server": Fails(500, b'{"error": {"message": "overloaded"}}'),
    "no service": Fails(503),
    "no JSON": Fails(raw=b"<html>a gateway</html>"),
    "no completion": Fails(raw=b'{"choices": []}'),
    "a content that is no text": Fails(raw=b'{"choices": [{"message": {"content": 3}}]}'),
    "a cut connection": Fails(raw=b'{"choices": [', cut=True),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_tried_again(name: str) -> None:
    reply, requests = ask(first_fails(PASSING[name], PASSING[name]))
    assert (reply.text, requests) == ("a dog", 3)


@pytest.mark.parametrize(
    "said",
    [
        {"choices": [{"message": {"content": f"Bearer {SECRET}"}, "finish_reason": SECRET}], "model": f"x {SECRET}"},
        {"choices": [], "headers": {"Authorization": "x" * 32 + SECRET}},
        {"choices": [{"message": {"content": [SECRET]}}], "x" * 39: SECRET},
    ],
)
def test_a_success_that_repeats_the_key_shows_and_keeps_none(tmp_path: Path, said: object) -> None:
    with serving(lambda body, number: Fails(raw=json.dumps(said).encode())) as server:
        try:
            shown = repr(asking(tmp_path, server.url)([request("x")]))
        except ChatError as error:
            shown = str(error)
    assert SECRET[:6] not in "".join([shown, *(path.read_text() for path in tmp_path.rglob("*.json"))])


def test_a_key_that_is_no_secret_is_a_word_of_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "dog")
    assert ask(lambda body, number: "a dog")[0].text == "a dog"


LATE = [{"silent": 3.0}, {"drip": 0.2, "in_head": True}, {"drip": 0.2}]


@pytest.mark.parametrize("late", LATE, ids=["silence", "a head that drips", "a body that drips"])
def test_a_reply_that_is_late_is_tried_again(late: dict[str, Any]) -> None:
    def script(body: Body, number: int) -> object:
        return "a dog" if number else Fails(raw=completion("too late", body), **late)

    reply, requests = ask(script, timeout=0.5, retries=9)
    assert reply.text == "a dog"
    assert requests >= 2  # on a busy machine a good reply may be late too


def test_a_retry_after_is_followed() -> None:
    began = time.monotonic()
    ask(first_fails(Fails(429, headers={"Retry-After": "0.5"})))
    assert time.monotonic() - began >= 0.5
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 55 < (retry_after(in_a_minute) or 0) <= 60
    assert retry_after("soon") is None
    assert retry_after(None) is None


def test_waits_double_up_to_a_minute_and_vary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "FIRST_WAIT", 1.0)
    for attempt, longest in ((0, 1), (1, 2), (4, 16), (9, 60)):
        waits = {waiting(attempt, None) for _ in range(50)}
        assert longest / 2 <= min(waits) < max(waits) <= longest
    assert 5 <= waiting(0, 5.0) < 5.2
    assert waiting(0, 1e9) < 601


def test_what_does_not_pass_is_one_line_after_the_last_try() -> None:
    with pytest.raises(ChatError, match=r"/v1/chat/completions: HTTP 500 \(overloaded\), 3 times") as found:
        ask(lambda body, number: PASSING["an error of the server"])
    assert "\n" not in str(found.value)
    with pytest.raises(ChatError, match="no chat completion"):
        ask(lambda body, number: Fails(raw=b"\xff\xfe\n\n not json"))


@pytest.mark.parametrize(
    ("status", "right"), [(401, "the endpoint's own key in OPENAI_API_KEY"), (404, "chat.base_url")]
)
def test_what_cannot_pass_is_not_tried_again_and_shows_no_key(status: int, right: str) -> None:
    said = f'{{"error": {{"message": "Incorrect API key provided: {SECRET}"}}}}'.encode()
    with serving(lambda body, number: Fails(status, said)) as server, pytest.raises(ChatError) as found:
        Client({**QUICK, "base_url": server.url})(request())
    assert len(server.requests) == 1
    assert f"HTTP {status}" in str(found.value)
    assert right in str(found.value)
    assert SECRET not in repr(found.value)


def test_a_redirect_is_not_followed_because_the_key_would_go_along() -> None:
    with serving() as other, serving(lambda b, n: Fails(307, headers={"Location": other.url})) as server:
        with pytest.raises(ChatError, match="HTTP 307"):
            Client({**QUICK, "base_url": server.url})(request())
        assert other.requests == []


def test_an_endpoint_that_is_down_is_one_line() -> None:
    with socket.socket() as taken:  # bound, so that nobody else gets the port; it does not listen
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(ChatError, match=rf"127.0.0.1:{port}/v1/chat/completions: no answer .*refused.*, 3 times"):
            Client({**QUICK, "base_url": f"http://127.0.0.1:{port}/v1"})(request())


NOWHERE = ("http://localhost/ü", "http://.ex/v1", "http://x:abc/v1", "http://x:0/v1", "http://x:70000/v1", "http://[::1/v1",
           "http://ho st/v1", "http://localhost/v1\n", f"http://{'x' * 64}.org/v1", "http://münchen/v1")  # fmt: skip


def test_an_address_is_checked_and_holds_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in (None, "", "localhost:8000", "ftp://x/v1", "http://", *NOWHERE):
        with pytest.raises(UserError, match=r"chat\.base_url"):
            check_url(url)
    for url in ("http://localhost:8000/v1", "https://a-b.my_host.org./v1", "http://[::1]:8000/v1", "http://10.0.0.1"):
        assert check_url(url + "/") == url
    for url in ("http://me:hidden@host/v1", "https://host/v1?key=hidden"):
        with pytest.raises(UserError, match="OPENAI_API_KEY") as found:
            check_url(url)
        assert "hidden" not in str(found.value)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match="OPENAI_API_KEY: not set"):
        Client({"base_url": "https://api.openai.com/v1"})
    Client({"base_url": "http://localhost:8000/v1"})
    monkeypatch.setenv("OPENAI_API_KEY", "two\nlines")
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        Client({"base_url": "http://localhost:8000/v1"})
