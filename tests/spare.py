"""Processes that a warm command forks before it has threads. They become its children, which need not read torch again.

`subprocess.Popen` takes one for a worker, for a worker's scoring and for a question about a checkpoint, where one is left
and libraries would be read alike in its environment. Else it starts a new process. What is made of one is a child as any,
with the environment, streams, exit code, session and signals of a new process.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

QUESTIONS = ("blip2sweep.models.check", "blip2sweep.models.written_out")  # of models/checkpoints/child.py
WORKER = "blip2sweep.workers.worker"
MODULES = (WORKER, "blip2sweep.results.scoring_service", *QUESTIONS)
COUNT = 2  # two workers, or one that dies and the next
AT_START = ("PYTHON", "LD_", "LC_", "LANG", "HOME", "XDG_")  # looked at when Python or a library is read
AT_IMPORT = (*AT_START, "ACCELERATE_", "HF_", "HUGGINGFACE_", "MKL_", "OMP_", "PYTORCH_", "TORCH", "TRANSFORMERS_")


class Spare(NamedTuple):
    pid: int
    tell: socket.socket


SPARE: list[Spare] = []


def at_import(env: Mapping[str, str]) -> dict[str, str]:
    """What Python, torch, transformers and their like look at when they are read."""
    return {name: value for name, value in env.items() if name.startswith(AT_IMPORT)}


HERE = at_import(os.environ)


def fork_spare(count: int = COUNT) -> str | None:
    """Fork them. Returns None in this process, and the module to run in one that was asked for it."""
    for _ in range(count):
        ours, theirs = socket.socketpair()
        if (pid := os.fork()) == 0:
            ours.close()
            for other in SPARE:
                other.tell.close()
            return _become(theirs)
        theirs.close()
        SPARE.append(Spare(pid, ours))
    subprocess.Popen = Popen  # type: ignore[misc]
    return None


def _become(asked: socket.socket) -> str:
    """Wait for module, words, environment, folder, session and streams. Ends where who would ask ends before."""
    said, fds, *_ = socket.recv_fds(asked, 4, 3)
    if not said:
        os._exit(0)
    (module, *words), env, cwd, session = json.loads(asked.recv(int.from_bytes(said, "big"), socket.MSG_WAITALL))
    asked.close()
    for place, fd in enumerate(fds):
        os.dup2(fd, place)
        os.close(fd)
    if session:
        os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv[1:] = words
    sys.modules.pop(module, None)  # or runpy warns
    SPARE.clear()
    return (fork_spare(1) if module == WORKER else None) or str(module)


class Popen(subprocess.Popen[Any]):
    """What runs one of MODULES is one of the spare processes."""

    def _execute_child(self, args: Any, executable: Any, *rest: Any) -> None:
        env, pipes, session = rest[4] or os.environ, rest[8:14], rest[19]
        plain = rest[0] is None and not rest[2] and rest[3] is None and rest[18] == -1 and rest[20] in (-1, None)
        alike = _is_known(args) and plain and at_import(env) == HERE
        if (spare := _one() if alike else None) is None:
            super()._execute_child(args, executable, *rest)  # type: ignore[misc]
            return
        self.pid, tell = spare
        self._child_created = True
        streams = [own if fd == -1 else fd for own, fd in enumerate((pipes[0], pipes[3], pipes[5]))]
        said = json.dumps([args[2:], dict(env), str(Path.cwd()), session]).encode()
        with tell:
            socket.send_fds(tell, [len(said).to_bytes(4, "big")], streams)
            tell.sendall(said)
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


def _one() -> Spare | None:
    try:
        return SPARE.pop()
    except IndexError:
        return None


def _is_known(args: Sequence[str]) -> bool:
    return isinstance(args, list) and args[:2] == [sys.executable, "-m"] and args[2] in MODULES
