"""What the samples of an evaluation have the model read and write, from which its FLOPs follow (`models.work.Asked`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from blip2sweep.models.text import lengths
from blip2sweep.models.work import Asked

if TYPE_CHECKING:
    from blip2sweep.backends.torch.answers import Answer, Answers
    from blip2sweep.backends.torch.matches import Match, Matches


class AskedAll(NamedTuple):
    """asked: how often each was. per: how many pictures or questions share it. written: tokens of all answers with their
    ends; None where no text is requested."""

    asked: Counter[Asked]
    per: int
    written: int | None


def of_answers(answers: Answers, found: Sequence[Answer]) -> AskedAll | None:
    """One for each sample. The likelihood of references is a measurement, so it is not asked. None where the model does
    not say."""
    counted: Counter[Asked] = Counter()
    for i, answer in enumerate(found):
        one = _read(answers, i)
        if one is None:
            return None
        counted[one._replace(
            written=_written(answers, answer), beams=answers.generation.num_beams,
            options=tuple(map(len, answers.options[i])),
        )] += 1  # fmt: skip
    texts = "generate" in answers.requests
    return AskedAll(counted, len(found), sum(a.written * n for a, n in counted.items()) if texts else None)


def _read(answers: Answers, i: int) -> Asked | None:
    own = getattr(answers.language, "asked", None)
    prompt = answers.prompts[i]
    found: Asked | None = Asked(lengths(prompt)) if own is None else own(answers.pictures, answers.rows[i], prompt)
    return found


def _written(answers: Answers, answer: Answer) -> int:
    """The tokens of an answer with its end, which a text of the full length lacks."""
    if answer.text is None:
        return 0
    return min(answer.text.tokens + 1, answers.generation.max_new_tokens)


def of_matches(matches: Matches, found: Sequence[Match]) -> AskedAll:
    """Each picture, each distinct text, the contrast of all of them, and the pairs that are read together."""
    pictures = dict(zip(matches.rows, found, strict=True))
    counted = Counter({Asked(of="picture"): len(pictures), Asked((len(matches.texts),), of="contrast"): len(pictures)})
    counted.update(Asked((len(text),), of="text") for text in matches.texts)
    for match in pictures.values():
        own = [*(match.texts or ()), *(match.asking or ())]
        counted.update(Asked((len(matches.texts[j]),), of="pair") for j in set(matches.numbers[own].tolist()))
    return AskedAll(counted, len(pictures), None)
