"""What every test has."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from blip2sweep.cache import disk as cache
from blip2sweep.machine.signal_stack import signal_stack, signal_stack_kept
from blip2sweep.models.checkpoints import child
from tests.warm import answered

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

if "PYTEST_XDIST_WORKER" in os.environ:  # two processes on two cores: before torch is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

THOROUGH = 20  # tests of `make test` that take as long as one that is left out there, or so
LEFT_OUT = pytest.StashKey[dict[str, int]]()


@pytest.fixture(scope="session", autouse=True)
def _own_user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is remembered for a user is remembered for these tests alone, those of started processes too."""
    before = os.environ.get(cache.USER)
    os.environ[cache.USER] = str(tmp_path_factory.mktemp("user-cache"))
    yield
    os.environ.pop(cache.USER)
    if before is not None:
        os.environ[cache.USER] = before


@pytest.fixture(scope="session", autouse=True)
def _questions_about_checkpoints() -> Iterator[None]:
    """A process that has read torch answers them, where a user's would start one."""
    with pytest.MonkeyPatch.context() as here:
        here.setattr(child, "subprocess", SimpleNamespace(**{**vars(subprocess), "run": answered}))
        yield


@pytest.fixture(scope="session")
def _first_signal_stack() -> Iterator[int | None]:
    with signal_stack_kept():
        yield place()


@pytest.fixture(autouse=True)
def _own_signal_stack(_first_signal_stack: int | None) -> Iterator[None]:
    """No library leaves its own signal stack, which it frees: the next signal would end this process without a word."""
    yield
    assert place() == _first_signal_stack


def place() -> int | None:
    found = signal_stack()
    return found.start if found else None


@pytest.hookimpl(tryfirst=True)  # ahead of xdist, which reads the groups
def pytest_collection_modifyitems(items: list[pytest.Function], config: pytest.Config) -> None:
    """What a file makes once for all its tests is made in one process, not in each. What takes longest begins first, so that
    no process is left alone with it at the end."""
    for item in items:
        shared = any(made.scope == "module" for found in item._fixtureinfo.name2fixturedefs.values() for made in found)
        if shared and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
    if "PYTEST_XDIST_WORKER" in os.environ:
        long = 0 if config.option.markexpr else THOROUGH
        lengths: Counter[str] = Counter()
        for item in items:
            lengths[group(item)] += long if item.get_closest_marker("thorough") else 1
        items.sort(key=lambda item: -lengths[group(item)])


def group(item: pytest.Item) -> str:
    """What runs in one process."""
    marker = item.get_closest_marker("xdist_group")
    return marker.args[0] if marker else item.nodeid


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Of several processes each collects; the one that started them collects nothing, and tells."""
    if items and items[0].config.option.markexpr:
        left = Counter(room(item.nodeid) for item in items if item.get_closest_marker("thorough"))
        items[0].config.stash.setdefault(LEFT_OUT, {}).update(left)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: WorkerController, error: object) -> None:
    """What a process had collected, as it told it."""
    node.config.stash.setdefault(LEFT_OUT, {}).update(getattr(node, "workeroutput", {}).get("left_out", {}))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = session.config.stash.get(LEFT_OUT, {})


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was left out, and how it is run."""
    if left := config.stash.get(LEFT_OUT, {}):
        rooms = ", ".join(f"{name} {count}" for name, count in sorted(left.items(), key=lambda one: -one[1]))
        terminalreporter.write_line(
            f"left out: {sum(left.values())} thorough tests, which take long or need Slurm, Chromium or Java; "
            f"run them: make test-all, or of one room: pytest tests/ROOM ({rooms})"
        )


def room(nodeid: str) -> str:
    """The folder of tests, or the file that lies in none."""
    path = PurePath(nodeid.partition("::")[0])
    return path.parts[1].removesuffix(".py") if len(path.parts) > 1 else path.name
