"""A process that has read the libraries which most commands read, and forks for each command that a test types.

The command is a process of its own, with the folder, environment, umask, words, streams and exit code of a new one. It is spared the
second and more in which Python reads libraries; torch, matplotlib and wandb are not read ahead. What Python or a library looks at
when it starts cannot be set here: tests/command_line.py starts a new process where a test sets such a variable.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

READ = (
    "blip2sweep.cli", "blip2sweep.config.overrides", "blip2sweep.planning.plan", "blip2sweep.results.table", "hydra._internal.hydra",
    "hydra_plugins.blip2sweep.launchers", "pandas", "pyarrow.parquet", "rich.table",
)  # fmt: skip


class Request(NamedTuple):
    words: tuple[str, ...]
    cwd: str
    env: dict[str, str]
    umask: int


# ---- the side of the tests


def umask() -> int:
    """That of this process, which no call tells without a change."""
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("Umask:"))
    return int(line.split()[1], 8)


@cache
def server() -> socket.socket:
    """Started with the first command of a test process; ends with it."""
    ours, theirs = socket.socketpair()
    started = subprocess.Popen(
        [sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
        cwd=Path(__file__).parents[1], env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    theirs.close()
    atexit.register(started.wait)
    atexit.register(ours.close)
    return ours


def run(request: Request, timeout: float) -> tuple[int, str, str]:
    """Code, stdout and stderr, as of subprocess. Raises TimeoutExpired, and kills the command, when it takes longer."""
    told, tell = os.pipe()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, os.fdopen(told) as answers:
        sent = json.dumps(request).encode()
        socket.send_fds(server(), [len(sent).to_bytes(4, "big")], [out.fileno(), err.fileno(), tell])
        server().sendall(sent)
        os.close(tell)
        pid = int(answers.readline())
        if not select.select([answers], [], [], timeout)[0]:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(list(request.words), timeout)
        code = int(answers.readline())
        out.seek(0)
        err.seek(0)
        return code, out.read().decode(), err.read().decode()


# ---- the side of the process


def serve(asked: socket.socket) -> Request:
    """Fork for each request, and return in the copy that is the command."""
    while head := socket.recv_fds(asked, 4, 3):
        if not head[0]:
            os._exit(0)
        request = Request(*json.loads(asked.recv(int.from_bytes(head[0], "big"), socket.MSG_WAITALL)))
        if os.fork() == 0:
            asked.close()
            if (command := os.fork()) == 0:
                return become(request, *head[1])
            tell(command, *head[1])
        for fd in head[1]:
            os.close(fd)
        reap()
    raise AssertionError


def tell(command: int, out: int, err: int, told: int) -> None:
    """Wait for a command in the place of the process that serves the next one."""
    os.write(told, f"{command}\n".encode())
    _, status = os.waitpid(command, 0)
    os.write(told, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def reap() -> None:
    """Those who waited and are done."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def become(request: Request, out: int, err: int, told: int) -> Request:
    os.dup2(out, 1)
    os.dup2(err, 2)
    for fd in (out, err, told):
        os.close(fd)
    os.umask(request.umask)
    os.chdir(request.cwd)
    os.environ.clear()
    os.environ.update(request.env)
    sys.path[0] = request.cwd
    sys.argv[1:] = request.words
    return request


if __name__ == "__main__":
    sys.path.insert(1, str(Path(__file__).parents[1]))  # as pytest has it
    for name in READ:
        importlib.import_module(name)
    del sys.path[1]
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    assert len(names) - names.count("jemalloc_bg_thd") == 1, f"{names}: a library started a thread that no copy has"
    serve(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_module("blip2sweep", run_name="__main__", alter_sys=True)
