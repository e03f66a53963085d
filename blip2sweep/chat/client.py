"""Requests to an endpoint that speaks OpenAI's `/chat/completions`, one POST each, with retries.

The key comes from the environment variable OPENAI_API_KEY. It goes into one header and nowhere else: no message, no file.
A redirect is an error, because the header would go along.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import NamedTuple, TypeGuard
from urllib.parse import urlsplit

from blip2sweep.chat.connection import opener
from blip2sweep.chat.recipe import check_url
from blip2sweep.chat.replies import Reply, Request
from blip2sweep.errors import UserError
from blip2sweep.wire.chat import Endpoint

KEY = "OPENAI_API_KEY"
NEEDS_KEY = ("api.openai.com",)  # hosts that answer nobody without one
AGAIN = (408, 409, 429, 500, 502, 503, 504, 529)
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds; doubled at each try
LONGEST_ASKED = 600.0  # seconds that a Retry-After is followed
SECRET = 8  # characters that a key has which is one
MOST_BYTES = 4_000_000  # of a reply that is read


class ChatError(Exception):
    """The endpoint gave no reply. The message is one line and names the endpoint."""


class _Passing(Exception):
    """A failure that may pass. wait: seconds that the endpoint asks for."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


@dataclass
class Client:
    """Asks one endpoint. stop: set by whoever gives up; waits then end at once."""

    endpoint: Endpoint
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        """Raises UserError for an address that is none, and where the endpoint needs a key that is not set."""
        self.url = check_url(self.endpoint.get("base_url")) + "/chat/completions"
        self._key = os.environ.get(KEY, "").strip()
        if not self._key and urlsplit(self.url).hostname in NEEDS_KEY:
            raise UserError(f"{KEY}: not set, and {self.url} needs it; right: export {KEY}=… in this shell")
        if not self._key.isascii() or not self._key.isprintable():
            raise UserError(f"{KEY}: has characters that no key has; right: the key alone")
        self._timeout = self.endpoint.get("timeout") or 60.0
        self._opener = opener()

    def __call__(self, request: Request) -> tuple[Reply, dict[str, object]]:
        """(the reply, what else the endpoint says of it). Raises ChatError where there is none after all tries."""
        tries = (self.endpoint.get("retries") or 0) + 1
        for attempt in range(tries):
            try:
                return self._ask(request)
            except _Passing as error:
                if attempt + 1 == tries or self.stop.is_set():
                    raise ChatError(f"{self.url}: {error}, {tries} times") from None
                self.stop.wait(waiting(attempt, error.wait))
        raise AssertionError("no try at all")

    def _ask(self, request: Request) -> tuple[Reply, dict[str, object]]:
        began = time.monotonic()
        headers = {"Content-Type": "application/json", "User-Agent": "blip2sweep"}
        headers |= {"Authorization": f"Bearer {self._key}"} if self._key else {}
        sent = urllib.request.Request(self.url, json.dumps(request.body).encode(), headers)
        body = self._read(sent)
        try:
            found = _reply(body)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            shown = self._clean(body.decode(errors="replace"))[:80]
            raise _Passing(f"no chat completion ({shown or 'nothing'})") from None
        counts = (found.usage.get(name, 0) for name in ("prompt_tokens", "completion_tokens"))
        prompt, completion = (n if isinstance(n, int) else 0 for n in counts)
        told: dict[str, object] = {
            "answered_by": self._short(found.model),
            "finish_reason": self._short(found.finish),
            "time": time.time(),
        }
        return Reply(self._text(found.text), prompt, completion, round(time.monotonic() - began, 3)), told

    def _read(self, sent: urllib.request.Request) -> bytes:
        """The body of the response. Raises _Passing, or ChatError for what does not pass."""
        try:
            with self._opener.open(sent, timeout=self._timeout) as response:
                found: bytes = response.read(MOST_BYTES)
                return found
        except urllib.error.HTTPError as error:
            with error:
                told = self._told(error)
                if error.code in AGAIN:
                    raise _Passing(f"HTTP {error.code}{told}", retry_after(error.headers.get("Retry-After"))) from None
                raise ChatError(f"{self.url}: HTTP {error.code}{told}{_right(error.code)}") from None
        except TimeoutError:
            raise _Passing(f"no whole reply in {self._timeout} s") from None
        except (OSError, http.client.HTTPException) as error:
            if isinstance(getattr(error, "reason", None), TimeoutError):
                raise _Passing(f"no whole reply in {self._timeout} s") from None
            reason = getattr(error, "reason", None) or error
            raise _Passing(self._clean(f"no answer ({reason or type(error).__name__})")) from None

    def _told(self, error: urllib.error.HTTPError) -> str:
        """` (what the endpoint says)`, without a key. Of a refused key nothing, because endpoints repeat it."""
        if error.code in (401, 403):
            return ""
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            text = error.read(2000).decode(errors="replace")
            with contextlib.suppress(ValueError, KeyError, TypeError):
                text = str(json.loads(text)["error"]["message"])
            return f" ({self._clean(text)})" if text.strip() else ""
        return ""

    def _clean(self, text: str) -> str:
        """One short line without the key."""
        return " ".join(self._without_key(text).split())[:200]

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "…") if self._key else text

    def _text(self, text: str) -> str:
        """What is kept of a reply. A key such as `none`, which endpoints on this machine take, is a word of replies."""
        return self._without_key(text) if len(self._key) >= SECRET else text

    def _short(self, told: object) -> str | None:
        return self._clean(_whole(told)) if isinstance(told, str) else None


class _Completion(NamedTuple):
    """text: empty where the endpoint gives none, as after a filter. finish: why it ends, as the endpoint says it."""

    text: str
    usage: dict[str, object]
    finish: object
    model: object


def _reply(body: bytes) -> _Completion:
    """The completion in a response. Raises ValueError and its like for what is none."""
    data = json.loads(body)
    choice = data["choices"][0]
    text = choice["message"]["content"]
    if text is not None and not isinstance(text, str):
        raise TypeError("content")
    usage = data.get("usage")
    return _Completion(
        _whole(text or ""), usage if _is_object(usage) else {}, choice.get("finish_reason"), data.get("model")
    )


def _whole(text: str) -> str:
    """A text that can be written as UTF-8: half a surrogate pair, which JSON may have, becomes `?`."""
    return text.encode("utf-8", "replace").decode()


def _is_object(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)


def _right(code: int) -> str:
    if code in (401, 403):
        return f": the key is refused; right: the endpoint's own key in {KEY}"
    return "; right: chat.base_url and chat.model of an endpoint that has /chat/completions"


def waiting(attempt: int, asked: float | None) -> float:
    """Seconds before the next try: what the endpoint asks for, else doubled each time, with a random part so that many
    clients do not come back at once."""
    grown = min(LONGEST_WAIT, FIRST_WAIT * 2**attempt) * random.uniform(0.5, 1.0)
    return grown if asked is None else max(0.0, min(asked, LONGEST_ASKED)) + random.uniform(0, 0.1)


def retry_after(value: str | None) -> float | None:
    """The seconds of a Retry-After, which is a number or a date. None for anything else."""
    if value is None:
        return None
    with contextlib.suppress(ValueError):
        return float(value)
    with contextlib.suppress(ValueError, TypeError):
        return parsedate_to_datetime(value).timestamp() - time.time()
    return None
