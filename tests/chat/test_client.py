"""Requests against a server that fails as servers do."""

from __future__ import annotations

import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from blip2sweep.chat import client as clients
from blip2sweep.chat.asking import Asking, Lacking
from blip2sweep.chat.client import ChatError, Client, retry_after, waiting
from blip2sweep.chat.recipe import check_url
from blip2sweep.chat.replies import Replies, Reply, Request
from blip2sweep.errors import UserError
from blip2sweep.wire.chat import Endpoint
from tests.chat.server import Body, Fails, Script, completion, serving

SECRET = "sk-a-secret-of-this-test"
QUICK = Endpoint(timeout=2.0, retries=2)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)


def request(text: str = "What is it?", temperature: float = 0.0) -> Request:
    sampling = {"temperature": temperature, "max_tokens": 5} | ({"seed": 3} if temperature else {})
    return Request("m", [{"role": "user", "content": text}], sampling)  # type: ignore[arg-type]


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


def test_silence_is_tried_again() -> None:
    reply, requests = ask(first_fails(Fails(silent=0.6)), timeout=0.2)
    assert (reply.text, requests) == ("a dog", 2)


@pytest.mark.parametrize("in_head", [True, False])
def test_a_reply_that_drips_is_tried_again(in_head: bool) -> None:
    def script(body: Body, number: int) -> object:
        return "a dog" if number else Fails(raw=completion("too late", body), drip=0.1, in_head=in_head)

    reply, requests = ask(script, timeout=0.4)
    assert (reply.text, requests) == ("a dog", 2)


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
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ChatError, match=rf"127.0.0.1:{port}/v1/chat/completions: no answer .*refused.*, 3 times"):
        Client({**QUICK, "base_url": f"http://127.0.0.1:{port}/v1"})(request())


def test_an_address_is_checked_and_holds_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in (None, "", "localhost:8000", "ftp://x/v1", "http://"):
        with pytest.raises(UserError, match=r"chat\.base_url"):
            check_url(url)
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


# ---- many requests, and their store


def asking(folder: Path, url: str, cell: str = "a") -> Asking:
    return Asking(Replies(folder), cell, Client({**QUICK, "base_url": url}))


def test_each_request_is_asked_once_in_a_folder(tmp_path: Path) -> None:
    requests = [request(text) for text in ("x", "y", "x")]
    with serving() as server:
        first, second = asking(tmp_path, server.url), asking(tmp_path, server.url, "b")
        replies = first(requests)
        assert [r.text for r in second([*requests, request("z")])] == [*(r.text for r in replies), "z"]
        assert sorted(b["messages"][0]["content"] for b in server.requests) == ["x", "y", "z"]
    assert (first.usage.requests, first.usage.hits) == (3, 1)
    assert (second.usage.requests, second.usage.hits) == (4, 3)
    assert second.usage.prompt_tokens == 4
    assert second.usage.asked_prompt_tokens == 1
    again = Asking(Replies(tmp_path), "a")
    assert again(requests) == replies
    assert (again.usage.requests, again.usage.hits) == (3, 1)  # whose the replies are does not change


def test_a_reply_depends_on_model_messages_sampling_and_seed_alone() -> None:
    drawn = request(temperature=0.7)
    other = [
        Request("n", drawn.messages, drawn.sampling), request("?", 0.7), request(), request(temperature=0.2),
        Request("m", drawn.messages, {**drawn.sampling, "seed": 4}),
        Request("m", drawn.messages, {**drawn.sampling, "max_tokens": 6}),
    ]  # fmt: skip
    assert len({r.key for r in (drawn, *other)}) == 7
    assert request().key == request().key


@pytest.mark.parametrize("damage", ["cut", "other", "empty", "folder"])
def test_a_damaged_reply_is_asked_again(tmp_path: Path, damage: str) -> None:
    with serving() as server:
        asking(tmp_path, server.url)([request("x")])
        (path,) = tmp_path.rglob("*.json")
        if damage == "folder":
            path.unlink()
        else:
            text = path.read_text()
            path.write_text({"cut": text[:40], "other": text.replace('"text":"x"', '"text":"?"'), "empty": ""}[damage])
        assert asking(tmp_path, server.url)([request("x")])[0].text == "x"
        assert len(server.requests) == 2
    assert Replies(tmp_path).get(request("x")) is not None


def test_without_a_network_what_is_missing_is_counted(tmp_path: Path) -> None:
    with serving() as server:
        asking(tmp_path, server.url)([request("x")])
    with pytest.raises(Lacking) as found:
        Asking(Replies(tmp_path), "b")([request(text) for text in "xyzz"])
    assert found.value.requests == 2


def test_what_came_before_a_failure_is_kept(tmp_path: Path) -> None:
    def script(body: Body, number: int) -> object:
        return Fails(400, b"no") if body["messages"][0]["content"] == "bad" else "fine"

    with serving(script) as server:
        one = asking(tmp_path, server.url)
        one.concurrency = 1
        with pytest.raises(ChatError):
            one([request(text) for text in ("a", "b", "c", "bad")])
        before = len(server.requests) - 1
        assert len([*tmp_path.rglob("*.json")]) == before


def test_several_askers_of_the_same_replies_do_no_harm(tmp_path: Path) -> None:
    requests = [request(str(i)) for i in range(20)]
    found: list[list[str]] = []
    with serving() as server:
        run = lambda: found.append([r.text for r in asking(tmp_path, server.url)(requests)])  # noqa: E731
        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [[str(i) for i in range(20)]] * 3
    assert len(server.requests) < 60
