"""The language stage over the samples of a task.

Questions run in batches of like length. Where the model can, a picture is read once for all questions about it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import reduce
from itertools import accumulate
from typing import NamedTuple

from blip2sweep.backends.torch.batching import Run
from blip2sweep.backends.torch.matches import Match
from blip2sweep.backends.torch.sharing import Shared
from blip2sweep.models.images import Features
from blip2sweep.models.language import Prefilled, Sharing
from blip2sweep.models.ragged import joined
from blip2sweep.models.text import Ids, Likelihood, Prompt, Text
from blip2sweep.tasks.generation import Generation
from blip2sweep.tasks.question_text import prompts
from blip2sweep.tasks.sample import Sample, TaskData
from blip2sweep.tasks.task import Task

Prefill = Callable[[Sequence[int]], Prefilled]  # reads samples by their numbers


class Answer(NamedTuple):
    """The answer to a sample.

    text: None where none was requested. likelihood: summed over its targets, None where it has none. options: the
    likelihood of each of its choices. match: its scores, where a match was requested.
    """

    text: Text | None
    likelihood: Likelihood | None
    options: tuple[Likelihood, ...] = ()
    match: Match | None = None


class Answers:
    """The texts and likelihoods of samples.

    encoded: what the language model sees of their images. anew: a picture is read again for each question about it.
    """

    def __init__(
        self,
        run: Run,
        encoded: Features,
        generation: Generation,
        task: Task,
        samples: Sequence[Sample],
        nll_references: int,
        anew: bool = False,
    ) -> None:
        assert encoded.rows is not None
        self.run, self.generation, self.pictures, self.requests = run, generation, encoded.rows, task.REQUESTS
        self.language, self.stage, self.anew = run.loaded.language, run.loaded.anatomy.last_stage, anew
        self.nll_references = nll_references
        row = {image_id: i for i, image_id in enumerate(encoded.ids)}
        self.rows = [row[s.image_id] for s in samples]
        self.prompts = self.language.prompt_ids(prompts(task, samples, generation.prompt, generation.question))
        n = nll_references if "likelihood" in self.requests else 0
        self.references = self._reference_ids([task.targets(s, n) for s in samples])
        chosen_from = [s.choices if "choose" in self.requests else () for s in samples]
        self.options = self._reference_ids(chosen_from)

    def _reference_ids(self, texts: Sequence[Sequence[str]]) -> list[list[Ids]]:
        """The token ids of each sample's texts."""
        pairs = [(i, text) for i, own in enumerate(texts) for text in own]
        tokens = self.language.reference_ids([text for _, text in pairs], bool(self.generation.prompt))
        found: list[list[Ids]] = [[] for _ in texts]
        for (i, _), ids in zip(pairs, tokens, strict=True):
            found[i].append(ids)
        return found

    def all(self, shared: Shared | None = None) -> list[Answer]:
        """One answer for each sample, in their order.

        They come from an earlier cell that had the same input and questions.
        """
        if shared is None:
            return self._computed()
        with self.run.clock.stage(self.stage):
            question = self.question
            key = shared.language_key(self.pictures, question)
            known = shared.answered.get(key)
        shared.hits[self.stage] = len(known) if known else 0
        answers = known or shared.together(self, question) or self._computed()
        shared.answered.put(key, answers)
        return answers

    @property
    def question(self) -> list[object]:
        """All that is asked about the pictures: a part of the key of its answers."""
        question = [self.generation, self.rows, [_asked(p) for p in self.prompts], self.references]
        if any(self.options) or "generate" not in self.requests:
            question += [self.requests, self.options]
        return question

    def of(self, encoded: Features, task: TaskData) -> Answers:
        """The same is asked about other pictures. task: has their samples, all of which could be read."""
        return Answers(self.run, encoded, self.generation, task.rules, task.samples, self.nll_references, self.anew)

    def beside(self, others: Sequence[Answers], run: Run) -> Answers:
        """These questions, and those of others behind them. run: in which they are answered."""
        found, every = copy(self), [self, *others]
        first = [*accumulate((len(own.pictures) for own in every), initial=0)]
        found.run, found.pictures = run, joined([own.pictures for own in every])
        found.rows = [row + n for n, own in zip(first, every, strict=False) for row in own.rows]
        found.prompts, found.references, found.options = (
            [x for own in every for x in getattr(own, name)] for name in ("prompts", "references", "options")
        )
        return found

    def _computed(self) -> list[Answer]:
        """All answers, in the order of the samples."""
        everyone = range(len(self.prompts))
        answers = dict(self._by_pictures() if self._shares() else self._in_batches(everyone, self._prefill))
        return [answers[i] for i in everyone]

    def _shares(self) -> bool:
        """Whether some picture is read once for several questions."""
        if self.anew or len(set(self.rows)) == len(self.rows):
            return False
        return isinstance(self.language, Sharing) and self.language.shares

    def _by_pictures(self) -> list[tuple[int, Answer]]:
        asked: dict[int, list[int]] = {}  # {picture: its samples}
        for i, row in enumerate(self.rows):
            asked.setdefault(row, []).append(i)
        pictures = sorted(asked.items(), key=lambda one: (self.pictures.tokens(one[0]), one[0]))
        shares = [self.pictures.tokens(row) / self.language.tokens for row, _ in pictures]
        found = self.run.sequences.run(len(pictures), lambda piece: self._of_pictures(dict(pictures[piece])), shares)
        return [one for part in found for one in part]

    def _of_pictures(self, asked: Mapping[int, Sequence[int]]) -> list[tuple[int, Answer]]:
        """The answers to all samples of some pictures, each of which is read once. asked: {picture: its samples}."""
        assert isinstance(self.language, Sharing)
        place = {row: i for i, row in enumerate(asked)}
        chosen = sorted(i for own in asked.values() for i in own)
        with self.run.clock.stage(self.stage):
            rows, prompts = [place[self.rows[i]] for i in chosen], [self.prompts[i] for i in chosen]
            prefix = self.language.prefix(self.pictures.take(list(asked)), rows, prompts)
        if prefix is None:
            return self._in_batches(chosen, self._prefill)
        number = {i: n for n, i in enumerate(chosen)}
        return self._in_batches(chosen, lambda own: prefix.prefill([number[i] for i in own]))

    def _prefill(self, chosen: Sequence[int]) -> Prefilled:
        pictures = self.pictures.take([self.rows[i] for i in chosen])
        return self.language.prefill(pictures, [self.prompts[i] for i in chosen])

    def _in_batches(self, chosen: Sequence[int], prefill: Prefill) -> list[tuple[int, Answer]]:
        """(sample, answer), computed in batches of like length, so that there is little padding."""
        order = sorted(chosen, key=self._length)
        shares = [self._tokens(i) / self.language.tokens for i in order]
        batches = self.run.sequences.run(len(order), lambda rows: self._batch(order[rows], prefill), shares)
        return list(zip(order, (x for batch in batches for x in batch), strict=True))

    def _length(self, i: int) -> tuple[int, int, int]:
        """What samples of one batch should have alike."""
        tokens = 0 if self.pictures.lengths is None else self.pictures.tokens(self.rows[i])
        return tokens, len(self.prompts[i]), sum(map(len, self.references[i]))

    def _tokens(self, i: int) -> int:
        """About how many tokens the language model reads of a sample."""
        return self.pictures.tokens(self.rows[i]) + len(self.prompts[i])

    def _batch(self, chosen: Sequence[int], prefill: Prefill) -> list[Answer]:
        clock = self.run.clock
        with clock.stage(self.stage):
            prefilled = prefill(chosen)
        targets, options = ([ids[i] for i in chosen] for ids in (self.references, self.options))
        likelihoods: list[tuple[Likelihood, ...]] = [()] * len(chosen)
        by_option = likelihoods
        if any(targets) or any(options):
            with clock.stage("likelihood"):
                likelihoods, by_option = (_likelihoods(prefilled, texts) for texts in (targets, options))
        texts: Sequence[Text | None] = [None] * len(chosen)
        if "generate" in self.requests:
            with clock.stage(self.stage):
                texts = prefilled.generate(self.generation)
        found = zip(texts, map(_summed, likelihoods), by_option, strict=True)
        return [Answer(*one) for one in found]


def _asked(prompt: Ids) -> Ids | tuple[Ids, str]:
    """All that may be read of a prompt: its token ids, and its text, which a model may read by another tokenizer."""
    return (prompt, prompt.text) if isinstance(prompt, Prompt) else prompt


def _likelihoods(prefilled: Prefilled, texts: Sequence[Sequence[Ids]]) -> list[tuple[Likelihood, ...]]:
    """The likelihood of each text of each row. The k-th texts of all rows run at once."""
    result: list[tuple[Likelihood, ...]] = [()] * len(texts)
    for k in range(max(map(len, texts))):
        for i, found in enumerate(prefilled.likelihood([own[k] if k < len(own) else [] for own in texts])):
            result[i] += (found,) if k < len(texts[i]) else ()
    return result


def _summed(likelihoods: Sequence[Likelihood]) -> Likelihood | None:
    """The sum over the targets of a sample, from the first on. None where it has none."""
    return reduce(_added, likelihoods) if likelihoods else None


def _added(a: Likelihood, b: Likelihood) -> Likelihood:
    return Likelihood(a.nll_sum + b.nll_sum, a.nll_tokens + b.nll_tokens)
