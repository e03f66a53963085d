"""How far a journal was read, and what was found odd in it."""

from __future__ import annotations

from dataclasses import dataclass, field

from blip2sweep.console.remarks import many, some


@dataclass(slots=True)
class JournalRead:
    """How far a journal was read, and what was found odd in it."""

    closed: int = 0  # lines it is known to have
    offset: int = 0
    lines: int = 0
    number: int = 0  # that the next sealed line is to have
    sealed: bool = False
    odd: list[int] = field(default_factory=list)  # lines, from 1
    since: int = 0  # odd ones after the last good one
    missing: int = 0

    def told(self) -> str:
        """`2 damaged or odd lines left out (line 3, 7), 1 line missing`; empty for a whole one."""
        odd = f"{many(len(self.odd), 'damaged or odd line')} left out (line {some([*map(str, self.odd)])})"
        told = [odd] * bool(self.odd) + [f"{many(self.missing, 'line')} missing"] * bool(self.missing)
        return ", ".join(told)

    def follows(self, number: int) -> bool:
        """Take note of a sealed line. False for one that was there before."""
        self.sealed = True
        if number < self.number:
            return False
        self.missing += max(0, number - self.number - self.since)
        self.number, self.since = number + 1, 0
        return True
