"""What is said wherever numbers of an embedded model are shown."""

from __future__ import annotations

from collections.abc import Iterable

from blip2sweep.reporting.sections import shipped_section

DEFAULT = "tiny"
EMBEDDED = "pkg://blip2sweep.assets/"
PROVES, PROVE = "it proves the plumbing and ranks no methods", "they prove the plumbing and rank no methods or models"


def embedded_note(models: Iterable[object]) -> str | None:
    """The note on the models that ship with the package; None where none of these is one."""
    names = sorted(name for name in set(map(str, models)) if _is_embedded(name))
    if len(names) > 1:
        return f"models {', '.join(names[:-1])} and {names[-1]} are embedded: {PROVE} for the world"
    what = "is the embedded default" if names == [DEFAULT] else "is embedded"
    return f"model {names[0]} {what}: {PROVES} for the world" if names else None


def _is_embedded(name: str) -> bool:
    section = shipped_section(name)
    return section is not None and str(section.get("path")).startswith(EMBEDDED)
