"""Results that were scored with another version of what is installed beside this package, such as a lemmatiser's model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from blip2sweep.canonical import canonical_json
from blip2sweep.commands.rescore import jobs_of
from blip2sweep.results.asked import as_asked
from blip2sweep.results.committed import predictions_name
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.predictions import installed_for, read_variants
from blip2sweep.results.scoring import versions_of
from blip2sweep.results.sweeps import Sweep
from blip2sweep.wire.lines import ResultLine


def of_other_versions(output_dir: Path, sweep: Sweep, keys: Collection[str]) -> list[ResultLine]:
    """The results of these cells of a sweep of which a score that it wants was made with another version.

    Score files, packs and tasks are read only for cells whose scores depend on what is installed. Where it is not
    installed here, and for tasks of code from outside, which is run to score alone, results count as they are.
    """
    if not keys:
        return []
    ledger = Ledger(output_dir, only=set(keys), measured=True).refresh()
    found = [r for r in ledger.results() if r["predictions"] and _depends(ledger, r)]
    jobs, asked, versions = (jobs_of(output_dir) if found else {}), sweep.asked(), dict[str, Mapping[str, str]]()
    older = []
    for result in (r for r in found if r["key"] in jobs):
        task = as_asked(jobs[result["key"]]["task"], asked.get(result["key"]))
        name = canonical_json(task)
        if name not in versions:
            versions[name] = versions_of(task)
        files = read_variants(output_dir, predictions_name(result)).values()
        there = installed_for(files)
        older += [result] if any(there.get(s, now) != now for s, now in versions[name].items()) else []
    return older


def _depends(ledger: Ledger, result: ResultLine) -> bool:
    """Whether some score of a result depends on what is installed, as it was measured."""
    return any("installed" in line for line in ledger.attempts[result["key"]].measured.values())
