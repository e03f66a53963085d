"""Stands for W&B's server, as far as `wandb sync` asks it: takes runs, artifacts and files, and keeps them."""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, unquote

Json = dict[str, Any]


@dataclass
class Kept:
    """runs: {id: its config}. artifacts: {name: {file: content}} of those that were committed. files: {run/path: content}.
    history: {run id: the lines of its history}. summary: {run id: it}."""

    url: str = ""
    runs: dict[str, Json] = field(default_factory=dict)
    artifacts: dict[str, dict[str, bytes]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    history: dict[str, list[Json]] = field(default_factory=dict)
    summary: dict[str, Json] = field(default_factory=dict)
    began: dict[str, tuple[str, dict[str, bytes]]] = field(default_factory=dict)  # {id: (name, files)}

    def answer(self, operation: str, asked: Json) -> Json:
        """The data of a GraphQL operation. Of others nothing is known, as of an older server."""
        told = {
            "UpsertBucket": self._run,
            "CreateArtifact": self._begin,
            "CreateArtifactManifest": self._manifest,
            "CreateArtifactFiles": self._artifact_files,
            "CommitArtifact": self._commit,
            "CreateRunFiles": self._run_files,
        }
        return {operation[:1].lower() + operation[1:]: told[operation](asked)} if operation in told else {}

    def put(self, path: str, content: bytes) -> None:
        """A file that was sent to the address that it was given."""
        kind, owner, name = (unquote(part) for part in path.strip("/").split("/"))
        files, path = (self.began[owner][1], name) if kind == "artifact" else (self.files, f"{owner}/{name}")
        files[path] = content

    def stream(self, run: str, sent: Json) -> None:
        """Lines of a run's history and summary."""
        for name, chunk in (sent.get("files") or {}).items():
            lines = [json.loads(line) for line in chunk["content"]]
            if "history" in name:
                self.history.setdefault(run, []).extend(lines)
            elif "summary" in name and lines:
                self.summary[run] = lines[-1]

    def _run(self, asked: Json) -> Json:
        name = asked["name"]
        self.runs[name] = json.loads(asked.get("config") or "{}")
        project = {"name": asked.get("project") or "p", "entity": {"name": "someone"}}
        return {"bucket": {"id": name, "name": name, "displayName": name, "project": project}, "inserted": True}

    def _begin(self, asked: Json) -> Json:
        id_ = f"a{len(self.began)}"
        self.began[id_] = asked["input"]["artifactCollectionName"], {}
        return {"artifact": {"id": id_, "state": "PENDING", "artifactSequence": {"id": "s", "latestArtifact": None}}}

    def _manifest(self, asked: Json) -> Json:
        file = self._address("artifact", asked.get("artifactID") or asked["input"]["artifactID"], "wandb_manifest.json")
        return {"artifactManifest": {"id": "m", "file": file}}

    def _artifact_files(self, asked: Json) -> Json:
        specs = asked.get("artifactFiles") or asked["input"]["artifactFiles"]
        nodes = [
            {**self._address("artifact", s["artifactID"], s["name"]), "artifact": {"id": s["artifactID"]}}
            for s in specs
        ]
        return {"files": {"edges": [{"node": node} for node in nodes]}}

    def _commit(self, asked: Json) -> Json:
        id_ = asked.get("artifactID") or asked["input"]["artifactID"]
        name, files = self.began[id_]
        self.artifacts[name] = files
        return {"artifact": {"id": id_, "digest": ""}}

    def _run_files(self, asked: Json) -> Json:
        names = asked.get("files") or asked["input"]["files"]
        run = asked.get("run") or asked["input"]["runName"]
        told = [{"name": n, "uploadUrl": self._address("run", run, n)["uploadUrl"]} for n in names]
        return {"runID": run, "uploadHeaders": [], "files": told}

    def _address(self, kind: str, owner: str, name: str) -> Json:
        url = f"{self.url}/{kind}/{quote(owner, safe='')}/{quote(name, safe='')}"
        return {
            "id": name,
            "name": name,
            "displayName": name,
            "uploadUrl": url,
            "uploadHeaders": [],
            "storagePath": None,
        }


@contextlib.contextmanager
def wandb_server() -> Iterator[Kept]:
    """A server of its own, as long as the block runs."""
    kept, lock = Kept(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Nothing is printed."""

        def do_GET(self) -> None:
            self._reply({})

        def do_PUT(self) -> None:
            with lock:
                kept.put(self.path, self._body())
            self._reply({})

        def do_POST(self) -> None:
            body, told = self._body(), Json()
            with lock:
                if "/graphql" in self.path:
                    asked = json.loads(body)
                    told = {"data": kept.answer(asked.get("operationName") or "", asked.get("variables") or {})}
                elif self.path.endswith("/file_stream"):
                    kept.stream(self.path.split("/")[-2], json.loads(body))
            self._reply(told)

        def _body(self) -> bytes:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

        def _reply(self, told: Json) -> None:
            data = json.dumps(told).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
