"""Which of several results of one cell counts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from blip2sweep.results.stopped import images_of
from blip2sweep.wire.lines import ResultLine


def longest(results: Mapping[str, ResultLine], missing: Collection[str] = ()) -> dict[str, ResultLine]:
    """The results that have the most images, whatever was written last. missing: attempts whose predictions are gone or
    damaged, which are as long as no other result unless all are missing.

    Of results with the same images, those known closely come before those that stopped with a verdict, because both
    sweeps can use them.
    """
    intact = [_length(r) for a, r in results.items() if a not in missing]
    most = max(intact or map(_length, results.values()))
    return {a: r for a, r in results.items() if _length(r) == most}


def _length(result: ResultLine) -> tuple[float, bool]:
    stopped = result.get("stopped")
    return images_of(result), not stopped or stopped["stop"] != "verdict"


def newest(results: Mapping[str, ResultLine]) -> tuple[str, list[str]]:
    """The attempt whose result counts among those of the same images, and all that could count where there are several.

    A result names the results it replaces. Of two results that do not know each other, the one with the larger id
    counts. Lines of earlier versions name nothing: they come before all others, in the order of their times.
    """
    replaced = {a for attempt, r in results.items() for a in r.get("replaces", ()) if a != attempt}
    heads = [a for a in results if a not in replaced] or list(results)
    with_links = [a for a in heads if "replaces" in results[a]]
    if not with_links:
        return max(heads, key=lambda a: (results[a]["time"], a)), []
    return max(with_links), sorted(with_links) if len(with_links) > 1 else []


def differ(results: Sequence[ResultLine]) -> bool:
    """Whether results of one key are not known to have the same outputs."""
    hashes = {r.get("predictions") for r in results}
    return len(results) > 1 and (None in hashes or len(hashes) > 1)
