"""Many requests, and the store of their replies."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest

from blip2sweep.chat.asking import Asking, Lacking
from blip2sweep.chat.client import ChatError
from blip2sweep.chat.replies import Replies, Reply, Request
from blip2sweep.errors import UserError
from tests.chat.asking import asking, request
from tests.chat.server import Body, Fails, serving


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


@pytest.mark.parametrize("damage", ["cut", "other", "empty", "gone"])
def test_a_damaged_reply_is_asked_again(tmp_path: Path, damage: str) -> None:
    with serving() as server:
        asking(tmp_path, server.url)([request("x")])
        (path,) = tmp_path.rglob("*.json")
        if damage == "gone":
            path.unlink()
        else:
            text = path.read_text()
            path.write_text({"cut": text[:40], "other": text.replace('"text":"x"', '"text":"?"'), "empty": ""}[damage])
        assert asking(tmp_path, server.url)([request("x")])[0].text == "x"
        assert len(server.requests) == 2
    assert Replies(tmp_path).get(request("x")) is not None


def test_a_folder_in_the_place_of_a_reply_is_no_reply_and_is_named(tmp_path: Path) -> None:
    with serving() as server:
        asking(tmp_path, server.url)([request("x")])
        (path,) = tmp_path.rglob("*.json")
        path.unlink()
        path.mkdir()
        assert Replies(tmp_path).get(request("x")) is None
        with pytest.raises(UserError, match=rf"{path.name}: cannot be written \(Is a directory\)"):
            asking(tmp_path, server.url)([request("x")])
    assert [*path.parent.iterdir()] == [path]  # nothing half-written


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
        asked = len(server.requests)
        assert 20 <= asked <= 60  # 60 where they go on in step
        run()
        assert len(server.requests) == asked
    assert found[-1] == found[0]


def test_half_a_surrogate_pair_is_a_reply_that_can_be_kept(tmp_path: Path) -> None:
    said = b'{"choices": [{"message": {"content": "a \\ud800 dog"}}], "model": "\\ud800"}'
    with serving(lambda body, number: Fails(raw=said)) as server:
        assert asking(tmp_path, server.url)([request("x")])[0].text == "a ? dog"
    assert Replies(tmp_path).get(request("x")) is not None


def test_a_reply_without_a_text_is_counted_and_says_why(tmp_path: Path) -> None:
    said = b'{"choices": [{"message": {"content": null}, "finish_reason": "content_filter"}]}'
    with serving(lambda body, number: "fine" if number else Fails(raw=said)) as server:
        one = asking(tmp_path, server.url)
        assert one([request("x")])[0].text == ""
        one([request("x"), request("y")])
    assert (one.usage.requests, one.usage.empty) == (3, 2)
    stored = [path.read_text() for path in tmp_path.rglob("*.json")]
    assert sorted('"finish_reason":"content_filter"' in text for text in stored) == [False, True]


def test_two_who_ask_at_once_rest_on_the_reply_that_came_first(tmp_path: Path) -> None:
    both = threading.Barrier(2)

    def drawn(body: Body, number: int) -> str:
        both.wait(5)
        return f"reply {number}"

    found: dict[str, tuple[Asking, Reply]] = {}

    def run(cell: str) -> None:
        one = asking(tmp_path, server.url, cell)
        found[cell] = one, one([request("x", 0.7)])[0]

    with serving(drawn) as server:
        threads = [threading.Thread(target=run, args=(cell,)) for cell in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(server.requests) == 2
    assert len({reply for _, reply in found.values()} | {Replies(tmp_path).get(request("x", 0.7))}) == 1
    assert sum(one.usage.hits for one, _ in found.values()) == 1
    assert [p.suffix for p in tmp_path.rglob("*") if p.is_file()] == [".json"]


def test_a_file_system_without_links_keeps_replies_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    replies = Replies(tmp_path)
    assert replies.put(request("x"), Reply("first"), {}).text == "first"
    assert replies.put(request("x"), Reply("second"), {}).text == "first"
