"""Questions about a checkpoint that need torch and transformers: a child process answers them, so that planning needs neither."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from blip2sweep.console.printing import say
from blip2sweep.errors import UserError
from blip2sweep.models.checkpoints.headers import shown
from blip2sweep.wire.pack import JsonObject

ANSWER = "blip2sweep-verdict: "  # begins the line of an answer; libraries print lines as well
LIMIT = 600.0  # seconds; importing torch from a cold network file system takes minutes
QUIET = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


def ask(
    module: str, folder: Path, question: JsonObject, about: str, form: type, limit: float = LIMIT,
    env: Mapping[str, str] = QUIET,
) -> object:  # fmt: skip
    """What `python -m MODULE` answers. It reads {folder, **question} from stdin and prints one line: `reply`.

    about: what is asked for, shown on a terminal. form: the type of the answer. env: what its environment has besides.
    Raises UserError where there is no answer.
    """
    if sys.stderr.isatty():
        say(f"checking {folder} once: {about} …", err=True)
    text = json.dumps({"folder": str(folder.absolute()), **question})
    try:
        child = subprocess.run(
            [sys.executable, "-m", module], input=text, capture_output=True, text=True, errors="replace",
            timeout=limit, check=False, env={**os.environ, **env},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise _no_answer(module, folder, f"gave no answer in {limit:.0f} s") from error
    except OSError as error:
        raise _no_answer(module, folder, f"cannot be started ({error.strerror})") from error
    found = _answer(child)
    if not isinstance(found, form):
        errors = child.stderr.strip().splitlines()
        told = shown(errors[-1]) if errors else "it said nothing"
        raise _no_answer(module, folder, f"{_ended(child.returncode)} ({told})")
    return found


def reply(answer: object) -> None:
    """Print an answer, in the child."""
    print(f"\n{ANSWER}{json.dumps(answer)}", flush=True)


def _answer(child: subprocess.CompletedProcess[str]) -> object:
    lines = [line.removeprefix(ANSWER) for line in child.stdout.splitlines() if line.startswith(ANSWER)]
    try:
        return json.loads(lines[-1]) if lines and not child.returncode else None
    except ValueError:  # the answer was cut off
        return None


def _ended(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def _no_answer(module: str, folder: Path, why: str) -> UserError:
    return UserError(
        f"{folder}: cannot be checked: python -m {module} {why}; right: the same command again, on a machine where "
        f"transformers can be imported"
    )
