"""Leaves cells that may stop for later while the baseline that they are compared with is on its way."""

from __future__ import annotations

import time
from collections.abc import Collection

from blip2sweep.results.ledger import Attempts, Ledger
from blip2sweep.results.stopped import asked
from blip2sweep.wire.pack import CellJob, Pack
from blip2sweep.workers.attempts import may_live, retry_mode


class Baselines:
    """Knows which baselines have no result yet, and which of them will. ledger: knows the baselines of the pack."""

    def __init__(self, pack: Pack, ledger: Ledger) -> None:
        self.pack, self.ledger = pack, ledger
        self._since: dict[str, float] = {}  # {baseline: when a cell was first left for later because of it}

    def awaited(self, job: CellJob, todo: Collection[CellJob], patience: float) -> bool:
        """Whether to come back to a cell. Its baseline may be computed by another worker, or be among what this launch
        still runs. Other cells are run first; where none can be, there is patience for so many seconds.

        todo: the cells that are left besides.
        """
        if not self.comes(job, todo):
            return False
        since = self._since.setdefault(job["baseline"], time.monotonic())
        if time.monotonic() - since >= patience:
            return False  # or its worker may be dead: the cell is compared with it from when it is there
        if all(self.comes(other) for other in todo):
            time.sleep(0.2)
        return True

    def comes(self, job: CellJob, todo: Collection[CellJob] = ()) -> bool:
        """Whether a cell may stop, and its baseline has no result yet but will have one."""
        settings, key = self.pack["settings"], job["baseline"]
        request = asked(settings, job["key"])
        if request is None or "chat" in job:
            return False
        attempts = self.ledger.attempts.get(key, Attempts())
        if attempts.done:
            return False
        launched = key in request.get("launched", ()) or any(other["key"] == key for other in todo)
        given_up = retry_mode(attempts.failed_in([self.pack["run"]])) == "skip"
        return (launched and not given_up) or any(may_live(start) for start in attempts.open)
