"""Cells that ask a chat model, a launch of them as a worker runs it, and what it leaves."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from blip2sweep.backends.dummy import Dummy
from blip2sweep.planning.packs import make_pack
from blip2sweep.results.ledger import Attempts, Journal, Ledger
from blip2sweep.results.predictions import read_predictions, stem
from blip2sweep.results.sweeps import Sweep, find_sweep
from blip2sweep.running.status import sweep_status
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.wire.chat import Endpoint
from blip2sweep.workers.in_context import run_in_context
from blip2sweep.workers.run_cell import run_cell
from blip2sweep.workers.signals import Stop
from tests.chat.server import Body
from tests.chat.server import Endpoint as Server
from tests.composing import plan

SECRET = "sk-a-secret-that-nobody-writes"
WORDS = ("task=shapes_vqa", "task.kind=incontext", "chat=local", "chat.model=m", "task.limit=9")
LIST = "1. What color is it?\n2. What shape is it?"


def reply(body: Body, number: int) -> object:
    """A chat model of few words, which refuses every third question."""
    said = str(body["messages"][-1]["content"])
    return LIST if "List the three" in said else ("unknown", "Blue", "no (I guess)")[len(said) % 3]


def jobs(*words: str, backend: str = "dummy") -> list[dict[str, Any]]:
    return [c.job() for c in plan(*WORDS, f"backend={backend}", *words).cells.values()]


def endpoint(server: Server | None, online: bool = False) -> Endpoint:
    return {
        "base_url": server.url if server else None,
        "online": online,
        "retries": 1,
        "concurrency": 2,
        "timeout": 5.0,
    }


def work(folder: Path, these: list[dict[str, Any]], told: Endpoint, run: str = "r") -> list[str | None]:
    """The cells of a launch as a worker leaves them, without scores. Returns the names of their predictions."""
    pack = make_pack(these, "first", run, folder, {"chat": told})  # type: ignore[arg-type]
    settings, ledger, dummy = pack["settings"], Ledger(folder), Dummy({})
    run_one = partial(run_in_context, ask=dummy, output_dir=folder, settings=settings)
    with closing(Journal(folder)) as journal:
        return [run_cell(job, run_one, journal, pack, Stop(), ledger) for job in pack["cells"]]


def attempts(folder: Path, key: str) -> Attempts:
    return Ledger(folder).refresh().attempts[key]


def states(folder: Path, sweep: Sweep) -> list[str]:
    status = sweep_status(folder, find_sweep(folder, sweep.name), Ledger(folder, only=sweep.keys, brief=True))
    return [status.states[k] for k in sweep.keys]


def predictions(folder: Path, key: str) -> Predictions:
    result = attempts(folder, key).result
    assert result is not None
    assert result["predictions"] is not None
    return read_predictions(folder, stem(key, result["predictions"]))
