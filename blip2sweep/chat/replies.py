"""Replies of chat models on disk: one file a request, named by the sha256 of what determines the reply.

Every cell and sweep of an output folder shares them. A file is written whole or not at all, and the first
writer's stays, so writers need no lock. One that is damaged counts as absent: the request is sent again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from blip2sweep.canonical import digest
from blip2sweep.errors import UserError
from blip2sweep.files import json_bytes, read_json, write_atomic, write_new
from blip2sweep.wire.chat import Message, Sampling

FOLDER = ("cache", "chat")  # in the output_dir


@dataclass(frozen=True)
class Request:
    """What a reply depends on. The endpoint's address is not part of it."""

    model: str
    messages: Sequence[Message]
    sampling: Sampling

    @property
    def body(self) -> dict[str, object]:
        """The fields of the request as the endpoint gets them."""
        return {"model": self.model, "messages": list(self.messages), **self.sampling}

    @cached_property
    def key(self) -> str:
        """The sha256 of the body, in hex digits."""
        return digest(self.body)


@dataclass(frozen=True)
class Reply:
    """A reply. prompt_tokens, completion_tokens: what the endpoint counted, 0 where it told nothing. cell: the key of the
    cell for which it was asked; other cells found it here."""

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    cell: str = ""


class Replies:
    """The replies below an output folder."""

    def __init__(self, output_dir: Path) -> None:
        self.folder = output_dir.joinpath(*FOLDER)

    def get(self, request: Request) -> Reply | None:
        """The reply to a request; None where there is none, or a damaged one."""
        try:
            stored = read_json(self._path(request))
            if stored["request"] != request.body:
                return None
            return Reply(**stored["reply"])
        except (UserError, OSError, KeyError, TypeError):
            return None

    def put(self, request: Request, reply: Reply, told: dict[str, object]) -> Reply:
        """Store a reply, unless another process has stored one meanwhile. Returns the one that is stored, so that all who
        ask rest on the same. told: what else the endpoint says of it. Raises UserError when the disk refuses."""
        path, data = self._path(request), json_bytes({"request": request.body, "reply": reply.__dict__, **told})
        if write_new(path, data):
            return reply
        if (there := self.get(request)) is not None:
            return there
        write_atomic(path, data)  # a damaged one
        return self.get(request) or reply

    def _path(self, request: Request) -> Path:
        return self.folder / request.key[:2] / f"{request.key}.json"
