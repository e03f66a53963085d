"""The files that a result rests on, and whether they are there as they were written."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import orjson

from blip2sweep.files import as_noted
from blip2sweep.wire.lines import Note, ResultLine

MOST_STATS = 200  # results whose files are looked for one by one; for more the folder is listed
MOST_WHOLE = 20_000  # results of which following asks more than whether their files are there


def predictions_name(result: ResultLine) -> str:
    """The name of a result's predictions and statistics. Only imported results have none: do not ask them."""
    assert result["predictions"] is not None
    return f"{result['key']}-{result['predictions'][:12]}"


def files_of(result: ResultLine) -> list[tuple[str, Note | None]]:
    """(name in `predictions/`, what it was when it was written) of the file that a `result` line rests on, and of its second
    runs: without them there is no noise floor, and no more is lost."""
    name, files = predictions_name(result), result.get("files") or {}
    noted = orjson.loads(files) if isinstance(files, bytes) else files
    second = [(f"{name}-{k}.json", note) for k, note in noted.items() if k.startswith("noise")]
    return [(f"{name}.json", noted.get("predictions")), *second]


class Look:
    """Whether files of a folder are there and as they were written."""

    def __init__(self, folder: Path, files: int, brief: bool) -> None:
        self.folder, self._stats = str(folder), dict[str, os.DirEntry[str]]()
        self._by_name = brief and files > MOST_WHOLE
        if files > MOST_STATS:
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                self._stats = {e.name: e for e in entries}

    def there(self, name: str, note: Note | None) -> bool:
        path, entry = f"{self.folder}/{name}", self._stats.get(name)
        if entry and self._by_name:
            return True
        try:
            stat = entry.stat() if entry else os.stat(path)  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True  # somebody else's: who wants to read it is told
        return as_noted(path, stat, note)
