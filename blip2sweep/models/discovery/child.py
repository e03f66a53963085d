"""Answers `blip2sweep model add`: a child, so that what libraries print does not mix with what the command says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from blip2sweep.errors import UserError
from blip2sweep.machine.garbage import seldom
from blip2sweep.models.checkpoints import reply
from blip2sweep.models.discovery import propose
from blip2sweep.wire.pack import JsonObject


def answer(folder: Path, question: JsonObject) -> JsonObject:
    """{section}, or {refused: why}. question: name and partial, as `propose` takes them."""
    try:
        name = question["name"]
        return {"section": propose(folder, None if name is None else str(name), bool(question["partial"]))}
    except UserError as error:
        return {"refused": str(error)}


def main() -> None:
    question = json.load(sys.stdin)
    reply(answer(Path(question["folder"]), question))


if __name__ == "__main__":
    seldom()
    main()
