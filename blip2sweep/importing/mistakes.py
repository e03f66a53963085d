"""What is wrong with a file, gathered, so that one reading of it names everything."""

from __future__ import annotations

from pathlib import Path

from blip2sweep.errors import UserError

MOST = 20  # mistakes that are spelled out


class Mistakes:
    """Mistakes of one file, with the line where there is one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, int] = {}  # what is said -> its line, 0 for the whole file

    def add(self, text: str, line: int | None = None) -> None:
        self.found[f"line {line}: {text}" if line else text] = line or 0

    @property
    def lines(self) -> set[int]:
        """Lines that have a mistake already, so that what follows from it is not told as another."""
        return set(self.found.values()) - {0}

    def check(self) -> None:
        """Raises UserError, one line, when there is any."""
        listed = sorted(self.found, key=lambda text: self.found[text])
        if len(listed) == 1:
            raise UserError(f"{self.path}{', ' if listed[0].startswith('line ') else ': '}{listed[0]}")
        if listed:
            more = f" | and {len(listed) - MOST} more" if len(listed) > MOST else ""
            raise UserError(
                f"{self.path}: {len(listed)} mistakes, nothing is imported: {' | '.join(listed[:MOST])}{more}"
            )
