"""What a question looks like in a prompt: as it stands in its file, or as LAVIS rewrites it first.

`generation.question` chooses; a kind without questions (`ASKS`) reads nothing of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blip2sweep.tasks.sample import Sample
    from blip2sweep.tasks.task import Task

RAW, LAVIS = "raw", "lavis"
QUESTIONS = (RAW, LAVIS)
MOST_WORDS = 50
_DELETED = re.compile(r'[.!"()*#:;~]')


def prompts(task: Task, samples: Sequence[Sample], template: str | None, question: str = RAW) -> list[str]:
    """The prompt of each sample, its question rewritten as `question` says."""
    asked = samples if question == RAW else [replace(s, question=lavis_question(s.question)) for s in samples]
    return [task.prompt(s, template or "") for s in asked]


def lavis_question(text: str | None) -> str | None:
    """A question as `BlipQuestionProcessor` of lavis/processors/blip_processors.py leaves it: in lower case, without the
    characters . ! " ( ) * # : ; ~ and without spaces at its end, its first 50 words. None stays None.

    Words are what single spaces separate, so that two spaces have an empty word between them.
    """
    if text is None:
        return None
    words = _DELETED.sub("", text.lower()).rstrip(" ").split(" ")
    return " ".join(words[:MOST_WORDS])
