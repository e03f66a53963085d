"""A worker process as it runs for a user, which writes where its time went when it ends.

    TIMES_FILE=FILE python -m scripts.benchmarks.worker PACK

It runs `blip2sweep.workers.worker` of whatever version is on the path. Some functions of the package are timed from
outside, as soon as the package imports them itself: imports and their order stay those of the package. The file is JSON:
`spans`, {name: [seconds, processor seconds of the process]}; `rounds`, {images: [how often a back end was asked for so many,
seconds, processor seconds]}; `first`, [time, processor seconds] when the first recipe was
applied; `prompts` and `references`, the token ids that the language model was given last; `package`, the file of the one that ran.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

FILE = "TIMES_FILE"  # in the environment
WORKER = "blip2sweep.workers.worker"
APPLY, BEGIN, GREEDY = "apply", "begin", "greedy"


class Times:
    """What the process has spent so far, by name."""

    def __init__(self) -> None:
        self.spans: dict[str, list[float]] = {}
        self.open: set[str] = set()
        self.rounds: dict[int, list[float]] = {}
        self.first: list[float] = []
        self.seen: dict[str, list[list[int]]] = {"prompts": [], "references": []}

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Add what the body takes, once where it is inside itself. A GPU has done its work at both ends."""
        if name in self.open:
            yield
            return
        self.open.add(name)
        start, cpu = _now(), time.process_time()
        try:
            yield
        finally:
            self.open.remove(name)
        spent = self.spans.setdefault(name, [0.0, 0.0])
        spent[0] += _now() - start
        spent[1] += time.process_time() - cpu

    def timed(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **named: Any) -> Any:
            with self.span(name):
                return function(*args, **named)

        return call

    def marked(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose first call ends the start of the process."""

        @wraps(function)
        def call(*args: Any, **named: Any) -> Any:
            self.first = self.first or [time.time(), time.process_time()]
            return function(*args, **named)

        return call

    def kept(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """The function, whose last result (lists of token ids) is kept. An empty one is of what nobody asked for."""

        @wraps(function)
        def call(*args: Any, **named: Any) -> Any:
            found = function(*args, **named)
            self.seen[name] = [[*ids] for ids in found] or self.seen[name]
            return found

        return call

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A back end's answer to a cell or a round of it, by its images."""

        @wraps(function)
        def call(*args: Any, **named: Any) -> Any:
            start, cpu = _now(), time.process_time()
            answered = function(*args, **named)
            own = self.rounds.setdefault(len({*answered.predictions.image_id}), [0, 0.0, 0.0])
            own[:] = own[0] + 1, own[1] + _now() - start, own[2] + time.process_time() - cpu
            return answered

        return call

    # ---- what is timed of each module, as soon as it is imported

    def clock(self, module: ModuleType) -> None:
        """Stages have a clock of their own, which knows no processor seconds."""
        plain, times = module.Clock.stage, self

        @contextmanager
        def stage(clock: Any, name: str) -> Iterator[None]:
            with plain(clock, name), times.span(name):
                yield

        module.Clock.stage = stage

    def patch(self, module: ModuleType) -> None:
        module.Patch.apply = self.marked(self.timed(module.Patch.apply, APPLY))

    def backend(self, module: ModuleType) -> None:
        module.TorchBackend.__call__ = self.counted(module.TorchBackend.__call__)

    def between(self, module: Any) -> None:
        """What happens between two rounds of a cell that may stop: looks, joining, and keeping what is known. Versions
        before may lack it."""
        owner, name = BETWEEN[module.__name__]
        own = getattr(module, owner, None) if owner else module
        if hasattr(own, name):
            setattr(own, name, self.timed(getattr(own, name), "between rounds"))

    def language(self, module: Any) -> None:
        """What reads and writes texts (blip2sweep/models/language.py), of all classes that a module defines."""
        for own in [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__]:
            for method in METHODS.keys() & vars(own).keys():
                setattr(own, method, self.timed(getattr(own, method), METHODS[method]))
            for method in TOKENIZED.keys() & vars(own).keys():
                setattr(own, method, self.kept(getattr(own, method), TOKENIZED[method]))


BETWEEN = {  # {module: (class, or nothing; function)}
    "blip2sweep.results.look_process": ("LookProcess", "answer"),
    "blip2sweep.backends.shares": ("Joiner", "rounds"),
    "blip2sweep.results.prefixes": ("", "write_prefix"),
}
METHODS = {"prefill": BEGIN, "prefix": BEGIN, "generate": GREEDY}
TOKENIZED = {"prompt_ids": "prompts", "reference_ids": "references"}
# Versions have these methods in one or several of them.
LANGUAGES = ("opt", "image_text.language", "image_text.prefix", "image_text.prefilled")


def watched(times: Times) -> dict[str, Callable[[ModuleType], None]]:
    """{name of a module: what has its functions timed}."""
    return {
        "blip2sweep.backends.torch.batching": times.clock, "blip2sweep.apply.patch": times.patch,
        "blip2sweep.backends.torch.backend": times.backend, **dict.fromkeys(BETWEEN, times.between),
        **{f"blip2sweep.models.{name}": times.language for name in LANGUAGES},
    }  # fmt: skip


class Watching(MetaPathFinder):
    """Calls a function with a module when it has been imported. after: {name of a module: function}."""

    def __init__(self, after: Mapping[str, Callable[[ModuleType], None]]) -> None:
        self.after = after

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        found = PathFinder.find_spec(name, path) if name in self.after else None
        if found is None or found.loader is None:
            return None
        plain, own = found.loader.exec_module, self.after[name]

        def execute(module: ModuleType) -> None:
            plain(module)
            own(module)

        found.loader.exec_module = execute  # type: ignore[method-assign]
        return found


def _now() -> float:
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "cuda") and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    times = Times()
    sys.meta_path.insert(0, Watching(watched(times)))
    try:
        runpy.run_module(WORKER, run_name="__main__", alter_sys=True)
    finally:
        path = getattr(sys.modules.get("blip2sweep"), "__file__", None)
        told = {"spans": times.spans, "rounds": times.rounds, "first": times.first, **times.seen, "package": path}
        Path(os.environ[FILE]).write_text(json.dumps(told))


if __name__ == "__main__":
    main()
