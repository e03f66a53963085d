"""The mistakes of an input, collected and reported at once."""

from __future__ import annotations

from pathlib import Path

from blip2sweep.errors import UserError, UserErrors

MOST = 10  # mistakes that are printed; the others are counted


class Mistakes:
    """The mistakes of one input. It may consist of several files."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.count = 0

    def add(self, path: Path, where: str, what: str) -> None:
        """where: such as `annotations[3] (image_id 42)`; what: what is wrong there, and what would be right."""
        self.count += 1
        if len(self.lines) < MOST:
            self.lines.append(f"{path}: {where}: {what}")

    def tell(self) -> None:
        """Raise UserError with one line a mistake, if there is any."""
        if self.count == 1:
            raise UserError(self.lines[0])
        if self.count:
            more = self.count - len(self.lines)
            raise UserErrors([*self.lines, f"and {more} mistakes more"] if more else self.lines)
