"""Processes that have read the libraries which commands read, and fork for each command that a test types.

The command is a process of its own, with the folder, environment, umask, words, streams and exit code of a new one. It is spared the
second and more in which Python reads libraries, and the tenth of a second that the first composition takes longer. One such process
has read what most commands read; matplotlib, wandb and torch are not among it. Commands that run cells are forked from another, which
has torch too; so are their workers (tests/spare.py). What Python or a library looks at when it starts cannot be set here:
tests/command_line.py starts a new process where a test sets such a variable.
"""

from __future__ import annotations

import atexit
import gc
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
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

sys.path[:0] = [str(Path(__file__).parents[1])] if __name__ == "__main__" else []  # as pytest has it
from blip2sweep.machine.unprobed import EXTRAS, unprobed  # noqa: E402
from tests.spare import QUESTIONS, at_import, fork_spare  # noqa: E402

READ = (
    "blip2sweep.cli", "blip2sweep.commands.plan", "blip2sweep.commands.run", "blip2sweep.config.overrides", "blip2sweep.config.standalone",
    "blip2sweep.models.blip2", "blip2sweep.models.image_text.adapter", "blip2sweep.planning.plan", "blip2sweep.results.table",
    "hydra._internal.hydra", "hydra._internal.logging_config", "hydra_plugins.blip2sweep.launchers", "hydra_plugins.blip2sweep.sweeper",
    "pandas", "pyarrow.parquet", "rich.table",
)  # fmt: skip
COMPUTE = (
    *READ, "torch", "blip2sweep.backends.torch.backend", "blip2sweep.models.decoder", "blip2sweep.models.opt",
    "blip2sweep.results.scoring_service", "blip2sweep.workers.worker",
    "transformers.models.auto.processing_auto", "transformers.models.blip_2.modeling_blip_2",
    "transformers.models.blip_2.processing_blip_2", "transformers.models.opt.modeling_opt",
)  # fmt: skip
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}  # of the processes that fork
PYTHON = sys.executable  # which a test may set
COMPUTING = (("export",), ("influence",), ("quantize",))  # verbs that have torch at work


class Request(NamedTuple):
    words: tuple[str, ...]
    cwd: str
    env: dict[str, str]
    umask: int
    module: str = "blip2sweep"


# ---- the side of the tests


def umask() -> int:
    """That of this process, which no call tells without a change."""
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("Umask:"))
    return int(line.split()[1], 8)


def computes(request: Request) -> bool:
    """Whether torch is at work in a command or its workers: of cells, tests say of how many samples."""
    words = request.words
    if words[:1] == ("plan",) or "backend=dummy" in words or at_import(request.env) != at_import(ENVIRONMENT):
        return False
    of_cells = any(word.startswith("task.limit=") for word in words)
    return of_cells or words[:1] in COMPUTING or request.module in QUESTIONS


@cache
def server(torch: bool) -> socket.socket:
    """Started with the first command of a test process that needs it; ends with it."""
    ours, theirs = socket.socketpair()
    started = subprocess.Popen(
        [PYTHON, __file__, str(theirs.fileno()), *["torch"] * torch], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
        cwd=Path(__file__).parents[1], env=ENVIRONMENT,
    )  # fmt: skip
    theirs.close()
    atexit.register(started.wait)
    atexit.register(ours.close)
    return ours


def run(request: Request, timeout: float, given: str = "") -> tuple[int, str, str]:
    """Code, stdout and stderr, as of subprocess. given: stdin. Raises TimeoutExpired, and kills the command, when it takes
    longer."""
    told, tell = os.pipe()
    temporary = tempfile.TemporaryFile
    with temporary() as stdin, temporary() as out, temporary() as err, os.fdopen(told) as answers:
        stdin.write(given.encode())
        stdin.seek(0)
        sent = json.dumps(request).encode()
        asked = server(computes(request))
        socket.send_fds(asked, [len(sent).to_bytes(4, "big")], [stdin.fileno(), out.fileno(), err.fileno(), tell])
        asked.sendall(sent)
        os.close(tell)
        pid = int(answers.readline())
        if not select.select([answers], [], [], timeout)[0]:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(list(request.words), timeout)
        code = int(answers.readline())
        out.seek(0)
        err.seek(0)
        return code, out.read().decode(), err.read().decode()


def answered(command: Sequence[str], *, input: str, timeout: float, env: dict[str, str], **how: Any) -> Any:
    """`subprocess.run` for a question about a checkpoint."""
    request = Request((), str(Path.cwd()), env, umask(), command[2])
    if command[0] != PYTHON or not computes(request):
        return subprocess.run(command, input=input, timeout=timeout, env=env, **how)
    assert how == {"capture_output": True, "text": True, "errors": "replace", "check": False}  # what is done here
    return subprocess.CompletedProcess(command, *run(request, timeout, input))


# ---- the side of the process


def serve(asked: socket.socket) -> str:
    """Fork for each request, and return in the copy that is the command what module it runs."""
    while head := socket.recv_fds(asked, 4, 4):
        if not head[0]:
            os._exit(0)
        request = Request(*json.loads(asked.recv(int.from_bytes(head[0], "big"), socket.MSG_WAITALL)))
        if os.fork() == 0:
            asked.close()
            if (command := os.fork()) == 0:
                return become(request, *head[1])
            tell(command, head[1][3])
        for fd in head[1]:
            os.close(fd)
        reap()
    raise AssertionError


def tell(command: int, told: int) -> None:
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


def become(request: Request, *fds: int) -> str:
    for place, fd in enumerate(fds[:3]):
        os.dup2(fd, place)
    for fd in fds:
        os.close(fd)
    os.umask(request.umask)
    os.chdir(request.cwd)
    os.environ.clear()
    os.environ.update(request.env)
    sys.path[0] = request.cwd
    sys.argv[1:] = request.words
    return request.module


if __name__ == "__main__":
    read = COMPUTE if sys.argv[2:] else READ
    with unprobed(*(EXTRAS if read is COMPUTE else ())):  # as a worker reads them
        for name in read:
            importlib.import_module(name)
    from tests.composing import jobs

    jobs("part=none")
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    assert len(names) - names.count("jemalloc_bg_thd") == 1, f"{names}: a library started a thread that no copy has"
    del sys.path[0]
    gc.collect()
    gc.freeze()  # what is never looked at again is never copied
    asked_for = serve(socket.socket(fileno=int(sys.argv[1])))
    module = fork_spare() if read is COMPUTE and asked_for == "blip2sweep" else None
    runpy.run_module(module or asked_for, run_name="__main__", alter_sys=True)
