"""What long work tells: nothing on a terminal, lines with the time in the log of a worker."""

from __future__ import annotations

import subprocess
import sys

CODE = "from blip2sweep.console import work_log\n{}\nprint(work_log.told()); work_log.tell('step 1')"


def ran(line: str) -> tuple[str, str]:
    done = subprocess.run([sys.executable, "-c", CODE.format(line)], capture_output=True, text=True, check=True)
    return done.stdout.strip(), done.stderr


def test_a_process_without_a_log_says_nothing() -> None:
    assert ran("") == ("False", "")


def test_a_worker_says_each_line_once_with_the_time() -> None:
    told, text = ran("import logging; logging.basicConfig(level=10); work_log.to_stderr(); work_log.to_stderr()")
    assert told == "True"
    (line,) = text.splitlines()
    assert line.endswith(" step 1")
    assert line[:4].isdigit()
