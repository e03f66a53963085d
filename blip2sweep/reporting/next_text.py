"""What to run next as a sentence, and the commands in it."""

from __future__ import annotations

from collections.abc import Sequence

from blip2sweep.reporting.next_steps import Step

MOST_STEPS, MOST_PARTS = 2, 4


def next_sentence(steps: Sequence[Step], suggested: str | None) -> str:
    """The first steps with their commands, how many of their cells the ledger has, and what would teach most."""
    more = f" and {len(steps) - MOST_STEPS} more" if len(steps) > MOST_STEPS else ""
    texts = [_step(step) for step in steps[:MOST_STEPS]]
    text = f"Run next: {'; '.join(texts)}{more}." if texts else "No fixed sequence of widths can be carried on."
    return text + (f" The cells that would teach most about all others: {suggested}." if suggested else "")


def commands_in(steps: Sequence[Step], suggested: str | None) -> list[str]:
    """The commands of the sentence."""
    return [command for command in (*(step.command for step in steps[:MOST_STEPS]), suggested) if command]


def _step(step: Step) -> str:
    what = f"{_some(step.parts)} at {', '.join(map(str, step.widths))} bits{_on(step)} with {step.setting} ({step.why})"
    text = what if step.parts else step.why
    return text + _there(step) + (f": {step.command}" if step.command else "")


def _on(step: Step) -> str:
    return f" on at least {step.images} images" if step.images else ""


def _there(step: Step) -> str:
    """How many of the cells other sweeps ran."""
    if not step.there:
        return f", {_cells(step.cells)}" if step.cells else ""
    if step.known:
        return f", {_cells(step.cells)} that the ledger has already, from other sweeps"
    return f", {_cells(step.cells)}, {step.there} of which the ledger has already"


def _cells(n: int) -> str:
    return f"{n} cell{'s' * (n != 1)}"


def _some(parts: Sequence[str]) -> str:
    more = f" and {len(parts) - MOST_PARTS} more" if len(parts) > MOST_PARTS else ""
    return ", ".join(p.replace("+", " + ") for p in parts[:MOST_PARTS]) + more
