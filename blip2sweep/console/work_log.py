"""What long work tells of its progress. A worker's log has it; a terminal, where a command does the same work, does not."""

from __future__ import annotations

import logging
import sys

_LOG = logging.getLogger("blip2sweep.work")


def tell(line: str) -> None:
    """Write a line of plain text with the time to the log, where this process has one."""
    _LOG.info(line)


def told() -> bool:
    """Whether this process has such a log."""
    return _LOG.isEnabledFor(logging.INFO)


def to_stderr() -> None:
    """Let this process tell on stderr, which is the log of a worker."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%F %T"))
    _LOG.handlers[:] = [handler]
    _LOG.setLevel(logging.INFO)
    _LOG.propagate = False
