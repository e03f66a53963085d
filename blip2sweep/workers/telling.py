"""What a worker tells whoever follows the sweep and does not read logs: lines of the ledger that name the worker."""

from __future__ import annotations

from blip2sweep.results.journal import Journal
from blip2sweep.wire.lines import WorkerName
from blip2sweep.wire.pack import Pack
from blip2sweep.workers.run_cell import slurm_job


class Warnings:
    """Writes the warnings of a worker."""

    def __init__(self, pack: Pack, journal: Journal) -> None:
        self.pack, self.journal = pack, journal
        self._told = set[str]()
        self._of_backend = False

    def __call__(self, warning: str) -> None:
        """Tell one."""
        self.journal.write("worker", **worker_name(self.pack), warning=warning)

    def once(self, warning: str) -> None:
        """Tell one, but no second time."""
        if warning not in self._told:
            self._told.add(warning)
            self(warning)

    def first_of_backend(self, warning: str | None) -> None:
        """Tell the first one that the back end has."""
        if warning and not self._of_backend:
            self._of_backend = True
            self(warning)


def worker_name(pack: Pack) -> WorkerName:
    """The fields that name a worker in `worker` lines of the ledger. They stay the same when its job is requeued."""
    sweep, run, part = pack["sweep"], pack["run"], pack.get("part")
    return {"sweep": sweep, "run": run, "part": part, "pack": pack["index"], "job": slurm_job()}
