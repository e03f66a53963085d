"""An endpoint that replies as a script says: a stdlib server on this machine."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = Mapping[str, Any]
Script = Callable[[Body, int], object]  # (the request, its number) -> a text to reply, or one of the failures


@dataclass
class Fails:
    """A response that is none: an HTTP status, raw bytes, seconds of silence before it, or a cut connection.

    drip: seconds between two pieces of the head (`in_head`) or of the body.
    """

    status: int = 200
    raw: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    silent: float = 0.0
    cut: bool = False
    drip: float = 0.0
    in_head: bool = False


def echo(body: Body, number: int) -> str:
    """A reply that tells of the question, as a chat model of few words would."""
    return str(body["messages"][-1]["content"])[-12:]


@dataclass
class Endpoint:
    """url: the base URL. requests: the bodies that came, in order; keys: their Authorization headers."""

    url: str = ""
    requests: list[Body] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)


@contextmanager
def serving(script: Script = echo) -> Iterator[Endpoint]:
    """A server that is there until the block ends."""
    found, lock = Endpoint(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(found.requests)
                found.requests.append(body)
                found.keys.append(self.headers.get("Authorization"))
            said = script(body, number) if self.path == "/v1/chat/completions" else Fails(404, b"no such path")
            self.send(said if isinstance(said, Fails) else Fails(raw=completion(str(said), body)))

        def send(self, said: Fails) -> None:
            time.sleep(said.silent)
            self.send_response(said.status)
            for name, value in said.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(said.raw) + (50 if said.cut else 0)))
            if said.in_head:
                for _ in range(8):
                    self.send_header("X-More", "x")
                    self.flush_headers()
                    time.sleep(said.drip)
            self.end_headers()
            for start in range(0, len(said.raw), 20 if said.drip else len(said.raw)):
                self.wfile.write(said.raw[start : start + 20] if said.drip else said.raw)
                time.sleep(said.drip)
            self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()


def completion(text: str, body: Body) -> bytes:
    """A chat completion as endpoints send it."""
    words = sum(len(str(m["content"]).split()) for m in body["messages"])
    usage = {"prompt_tokens": words, "completion_tokens": len(text.split()), "total_tokens": words + len(text.split())}
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return json.dumps(
        {"object": "chat.completion", "model": body["model"], "choices": [choice], "usage": usage}
    ).encode()
