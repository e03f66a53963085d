"""How far a journal was read, and which damage was found in it."""

from __future__ import annotations

from dataclasses import dataclass, field

from blip2sweep.console.remarks import many, some


@dataclass(slots=True)
class JournalRead:
    """How far a journal was read, and which damage was found in it."""

    closed: int = 0  # lines it has, where it was closed
    offset: int = 0  # bytes read
    lines: int = 0  # lines read
    number: int = 0  # expected of the next sealed line
    sealed: bool = False  # whether a sealed line was seen: all others must then be sealed too
    odd: list[int] = field(default_factory=list)  # numbers of damaged or malformed lines, from 1
    since: int = 0  # odd lines after the last good one
    missing: int = 0  # lines, by the gaps in the running numbers

    def summary(self) -> str:
        """`2 damaged or odd lines left out (line 3, 7), 1 line missing`; empty for an intact journal."""
        odd = f"{many(len(self.odd), 'damaged or odd line')} left out (line {some([*map(str, self.odd)])})"
        parts = [odd] * bool(self.odd) + [f"{many(self.missing, 'line')} missing"] * bool(self.missing)
        return ", ".join(parts)

    def follows(self, number: int) -> bool:
        """Count a sealed line by its running number. False for a number that was read before."""
        self.sealed = True
        if number < self.number:
            return False
        self.missing += max(0, number - self.number - self.since)
        self.number, self.since = number + 1, 0
        return True
