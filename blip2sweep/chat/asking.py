"""Replies to many requests: what the store has is taken, the rest is asked, or named as missing."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace

from blip2sweep.chat.client import Client
from blip2sweep.chat.replies import Replies, Reply, Request


class Lacking(Exception):
    """A cell cannot go on. requests: replies that are missing. rounds: what the vision-language model has not said yet,
    where nobody can ask it here."""

    def __init__(self, requests: int = 0, rounds: Sequence[str] = ()) -> None:
        super().__init__(f"{requests} replies, {', '.join(rounds) or 'no rounds'}")
        self.requests, self.rounds = requests, tuple(rounds)


@dataclass
class Usage:
    """What the requests of a cell took. hits: of them, those that were answered without asking for this cell.
    empty: of them, those whose reply has no text, as after a filter or where all tokens went into thoughts."""

    requests: int = 0
    hits: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    asked_prompt_tokens: int = 0
    asked_completion_tokens: int = 0
    seconds: float = 0.0
    empty: int = 0
    _seen: set[str] = field(default_factory=set)

    def add(self, request: Request, reply: Reply, cell: str) -> None:
        """Count one request of a cell."""
        own = reply.cell == cell and request.key not in self._seen
        self._seen.add(request.key)
        self.requests, self.hits = self.requests + 1, self.hits + (not own)
        self.empty += not reply.text.strip()
        self.prompt_tokens += reply.prompt_tokens
        self.completion_tokens += reply.completion_tokens
        if own:
            self.asked_prompt_tokens += reply.prompt_tokens
            self.asked_completion_tokens += reply.completion_tokens
            self.seconds += reply.seconds


@dataclass
class Asking:
    """Answers the requests of one cell. client: None where there is no network. progress: called at each reply that
    arrives, with how many were asked for."""

    replies: Replies
    cell: str
    client: Client | None = None
    concurrency: int = 4
    progress: Callable[[int, int], None] = lambda done, of: None
    usage: Usage = field(default_factory=Usage)

    def __call__(self, requests: Sequence[Request]) -> list[Reply]:
        """The replies, in order. Raises Lacking where some are missing and nobody asks here, and ChatError
        where the endpoint gives none; what arrived until then is kept."""
        distinct = {r.key: r for r in requests}
        known = {key: found for key, r in distinct.items() if (found := self.replies.get(r)) is not None}
        missing = [r for key, r in distinct.items() if key not in known]
        if missing:
            if self.client is None:
                raise Lacking(requests=len(missing))
            known |= self._asked(missing, self.client)
        for request in requests:
            self.usage.add(request, known[request.key], self.cell)
        return [known[r.key] for r in requests]

    def _asked(self, missing: list[Request], client: Client) -> dict[str, Reply]:
        """Ask, in random order: workers that want the same replies begin at different ones, and find the others'."""
        random.shuffle(missing)
        found: dict[str, Reply] = {}
        pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="chat")
        try:
            futures = {pool.submit(self._one, r, client): r for r in missing}
            for done, future in enumerate(as_completed(futures), 1):
                found[futures[future].key] = future.result()
                self.progress(done, len(missing))
        except BaseException:
            client.stop.set()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return found

    def _one(self, request: Request, client: Client) -> Reply:
        if (there := self.replies.get(request)) is not None:  # another process has asked meanwhile
            return there
        answered, told = client(request)
        reply = replace(answered, cell=self.cell)
        return self.replies.put(request, reply, told)
