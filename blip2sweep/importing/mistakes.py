"""The mistakes of a file, collected, so that one run reports all of them."""

from __future__ import annotations

from pathlib import Path

from blip2sweep.errors import UserError

MOST = 20  # mistakes that are printed; the others are counted


class Mistakes:
    """Mistakes of one file, each with its line if it has one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, int] = {}  # message -> its line, 0 for the whole file

    def add(self, text: str, line: int | None = None) -> None:
        self.found[f"line {line}: {text}" if line else text] = line or 0

    @property
    def lines(self) -> set[int]:
        """Lines with a mistake. What follows from that mistake must not be reported as another one."""
        return set(self.found.values()) - {0}

    def check(self) -> None:
        """Raise UserError, one line, if there is any mistake."""
        listed = sorted(self.found, key=lambda text: self.found[text])
        if len(listed) == 1:
            raise UserError(f"{self.path}{', ' if listed[0].startswith('line ') else ': '}{listed[0]}")
        if listed:
            more = f" | and {len(listed) - MOST} more" if len(listed) > MOST else ""
            raise UserError(
                f"{self.path}: {len(listed)} mistakes, nothing is imported: {' | '.join(listed[:MOST])}{more}"
            )
