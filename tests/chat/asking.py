"""Requests of the tests, and who asks them."""

from __future__ import annotations

from pathlib import Path

from blip2sweep.chat.asking import Asking
from blip2sweep.chat.client import Client
from blip2sweep.chat.replies import Replies, Request
from blip2sweep.wire.chat import Endpoint

SECRET = "sk-a-secret-of-this-test"
QUICK = Endpoint(timeout=2.0, retries=2)


def request(text: str = "What is it?", temperature: float = 0.0) -> Request:
    sampling = {"temperature": temperature, "max_tokens": 5} | ({"seed": 3} if temperature else {})
    return Request("m", [{"role": "user", "content": text}], sampling)  # type: ignore[arg-type]


def asking(folder: Path, url: str, cell: str = "a") -> Asking:
    return Asking(Replies(folder), cell, Client({**QUICK, "base_url": url}))
