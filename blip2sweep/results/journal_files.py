"""The journals of an output folder: which of them have grown, which are gone, and which cannot be read."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from blip2sweep.console.remarks import many, remark, some
from blip2sweep.results.journal import OPENED
from blip2sweep.results.progress import JournalRead

PARTIAL = "the numbers may be incomplete"


class JournalFiles:
    """Finds journals. known: {path: how far it was read}. unreadable: files that could not be read."""

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        self.known: dict[str, JournalRead] = {}
        self.unreadable: set[str] = set()
        self._expected: dict[str, int] | None = None  # {journal: its lines, or 0 where it was not closed}

    def grown(self) -> list[str]:
        """Journals that are longer than at the last refresh. No file is opened to find them."""
        first = self._expected is None
        if first:
            self._expected = _sizes(self.output_dir / OPENED)
        try:
            with os.scandir(self.output_dir / "journals") as entries:
                files = {e.path: self._size(e) for e in entries if e.name.endswith(".jsonl")}
        except (FileNotFoundError, NotADirectoryError):
            files = {}
        except OSError as error:
            self.cannot_read(str(self.output_dir / "journals"), error)
            return []
        if first and self._expected:
            self._miss(self._expected.keys() - set(map(os.path.basename, files)))
        for path in files.keys() - self.known.keys():
            self.known[path] = JournalRead(closed=(self._expected or {}).get(Path(path).name, 0))
        grown = (p for p, size in files.items() if size > self.known[p].offset or self.known[p].closed)
        return sorted(grown)

    def _miss(self, names: Collection[str]) -> None:
        """Remark on journals that were opened once and are gone."""
        folder = self.output_dir / "journals"
        lost = sorted(n for n in names if not os.path.lexists(folder / n))
        if lost:
            remark(f"{folder}: {many(len(lost), 'journal')} gone with all that was in there ({some(lost)}); "
                   f"if that was meant, remove the names from {self.output_dir / OPENED} too")  # fmt: skip

    def _size(self, entry: os.DirEntry[str]) -> int:
        try:
            return entry.stat().st_size
        except OSError as error:
            self.cannot_read(entry.path, error)
            return 0

    def cannot_read(self, path: str, error: OSError) -> None:
        self.unreadable.add(path)
        remark(f"{path}: cannot be read ({error.strerror}); what it holds is left out and {PARTIAL}")


def _sizes(folder: Path) -> dict[str, int]:
    """{name: bytes} of a folder's files; empty when the folder cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return {e.name: e.stat().st_size for e in entries}
    except OSError:
        return {}
