"""How a question with options is worded: the places that a prompt may have, and what stands there.

`{}` is the question. These are further places:
- `{options}`: the options, a line each, as "A. red".
- `{(A)}`: the options in one line, as "(A) red (B) blue"; `{(a)}` the same with small letters.
- `{(A) lines}`: a line each, as "(A) red", with a line break behind the last one too.
- `{context}`: the text that belongs to the question, or "N/A". `{context line}`: "Context: …" as a line of its own;
  nothing where there is no such text.
A prompt without a place for the options has them with the question, in the lines of `{context line}{}\\n{options}`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from blip2sweep.errors import UserError
from blip2sweep.metrics.letters import LETTERS, groups_of
from blip2sweep.metrics.metric import FloatArray
from blip2sweep.rows import Id
from blip2sweep.tasks.sample import Sample

QUESTION = "{}"
WHOLE = "{context line}{}\n{options}"


def _listed(form: str, between: str, letters: str = LETTERS) -> Callable[[Sequence[str]], str]:
    return lambda choices: between.join(form.format(a, b) for a, b in zip(letters, choices, strict=False))


OPTIONS: dict[str, Callable[[Sequence[str]], str]] = {
    "{options}": _listed("{}. {}", "\n"),
    "{(A)}": _listed("({}) {}", " "),
    "{(a)}": _listed("({}) {}", " ", LETTERS.lower()),
    "{(A) lines}": _listed("({}) {}\n", ""),
}


def check_question_place(prompt: str) -> None:
    """Raise UserError for a prompt without exactly one place for the question."""
    if prompt.count(QUESTION) != 1:
        raise UserError(
            f"generation.prompt={prompt!r}: no place for the question; right: such as 'Question: {{}} Answer:'"
        )


def names_options(template: str) -> bool:
    return any(place in template for place in OPTIONS)


def worded(sample: Sample, template: str) -> str:
    """The prompt of a sample with choices. Whatever the sample's texts hold stays as it is."""
    whole = template if names_options(template) else template.replace(QUESTION, WHOLE)
    context = str(sample.details.get("hint") or "")
    parts = {QUESTION: sample.question or "", "{context}": context or "N/A"}
    parts["{context line}"] = f"Context: {context}\n" if context else ""
    parts |= {place: listed(sample.choices) for place, listed in OPTIONS.items()}
    return filled(whole, parts)


def filled(template: str, parts: dict[str, str]) -> str:
    """The template with each place replaced once, from left to right: no place is looked for inside what was put in."""
    done, rest = "", template
    while (first := min((p for p in parts if p in rest), key=rest.index, default=None)) is not None:
        before, rest = rest.split(first, 1)
        done += before + parts[first]
    return done + rest


def right_option(sample: Sample) -> int:
    """The number of the right option: `answer` of the details, or else the first option that is a reference."""
    told = sample.details.get("answer")
    if isinstance(told, int):
        return told
    return next((i for i, text in enumerate(sample.choices) if text in sample.references), -1)


class Known:
    """What scoring needs of samples with options, by id."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._place = {s.id: i for i, s in enumerate(samples)}
        self._right = [right_option(s) for s in samples]
        self._counts = [len(s.choices) for s in samples]
        self._masks = np.array([groups_of(s.details) for s in samples], dtype=np.float64)

    def of(self, ids: Sequence[Id]) -> tuple[list[int], list[int], FloatArray]:
        """The right option and the number of options of each sample, and the groups it is of, (n, g)."""
        places = [self._place[i] for i in ids]
        return [self._right[i] for i in places], [self._counts[i] for i in places], self._masks[places]
