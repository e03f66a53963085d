"""The language stage over the samples of a task: image rows expanded to questions, batches of like length, order restored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from blip2sweep.backends.torch.batching import Run
from blip2sweep.backends.torch.sharing import Shared
from blip2sweep.models.architecture import Begun
from blip2sweep.models.images import Features
from blip2sweep.models.text import Ids, Likelihood, Text, caption_as_trained
from blip2sweep.tasks.generation import Generation
from blip2sweep.tasks.sample import Sample


class Answer(NamedTuple):
    """A sample's text, and the likelihood summed over its references (None where it has none)."""

    text: Text
    likelihood: Likelihood | None


class Answers:
    """Texts and likelihoods of samples, of whose images is known what the language model sees."""

    def __init__(
        self, run: Run, encoded: Features, generation: Generation, samples: Sequence[Sample], nll_references: int
    ) -> None:
        assert encoded.rows is not None
        self.run, self.generation, self.pictures = run, generation, encoded.rows
        self.language, self.stage = run.loaded.language, run.loaded.anatomy.last_stage
        row = {image_id: i for i, image_id in enumerate(encoded.ids)}
        self.rows = [row[s.image_id] for s in samples]
        prompt = generation.prompt or ""
        self.prompts = self.language.prompt_ids([prompt.replace("{}", s.question or "") for s in samples])
        self.references = self._reference_ids(samples, nll_references)

    def _reference_ids(self, samples: Sequence[Sample], n: int) -> list[list[Ids]]:
        pairs = [(i, text) for i, s in enumerate(samples) for text in _references(s, n)]
        tokens = self.language.reference_ids([text for _, text in pairs], bool(self.generation.prompt))
        found: list[list[Ids]] = [[] for _ in samples]
        for (i, _), ids in zip(pairs, tokens, strict=True):
            found[i].append(ids)
        return found

    def all(self, shared: Shared | None = None) -> list[Answer]:
        """One a sample, in their order; those of an earlier cell where it was asked the very same."""
        if shared is None:
            return self._computed()
        with self.run.clock.stage(self.stage):
            key = shared.language_key(self.pictures, [self.generation, self.rows, self.prompts, self.references])
            known = shared.answered.get(key)
        shared.hits[self.stage] = len(known) if known else 0
        answers = known or self._computed()
        shared.answered.put(key, answers)
        return answers

    def _computed(self) -> list[Answer]:
        """In batches of like length, so that they hold little padding."""
        order = sorted(
            range(len(self.prompts)), key=lambda i: (len(self.prompts[i]), sum(map(len, self.references[i])))
        )
        batches = self.run.sequences.run(len(order), lambda rows: self._batch(order[rows]))
        found = [x for batch in batches for x in batch]
        return [x for _, x in sorted(zip(order, found, strict=True), key=lambda pair: pair[0])]

    def _batch(self, chosen: Sequence[int]) -> list[Answer]:
        clock, pictures = self.run.clock, self.pictures.take([self.rows[i] for i in chosen])
        with clock.stage(self.stage):
            begun = self.language.begin(pictures, [self.prompts[i] for i in chosen])
        likelihoods: list[Likelihood | None] = [None] * len(chosen)
        if any(self.references[i] for i in chosen):
            with clock.stage("likelihood"):
                likelihoods = self._likelihoods(begun, [self.references[i] for i in chosen])
        with clock.stage(self.stage):
            texts = begun.generate(self.generation)
        return [Answer(t, n) for t, n in zip(texts, likelihoods, strict=True)]

    def _likelihoods(self, begun: Begun, references: Sequence[Sequence[Ids]]) -> list[Likelihood | None]:
        """Summed over each row's references, the k-th of all rows at once."""
        result: list[Likelihood | None] = [None] * len(references)
        for k in range(max(map(len, references))):
            for i, found in enumerate(begun.likelihood([r[k] if k < len(r) else [] for r in references])):
                result[i] = _added(result[i], found) if k < len(references[i]) else result[i]
        return result


def _references(sample: Sample, n: int) -> tuple[str, ...]:
    """Of a question the majority answer, of an image the first `n` captions."""
    if sample.question is not None:
        return (sample.majority,) if n else ()
    return tuple(caption_as_trained(text) for text in sample.references[:n])


def _added(a: Likelihood | None, b: Likelihood) -> Likelihood:
    return b if a is None else Likelihood(a.nll_sum + b.nll_sum, a.nll_tokens + b.nll_tokens)
