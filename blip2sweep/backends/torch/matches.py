"""The scores of pictures against texts, for tasks that request a match.

The contrastive score needs each picture and each text once. A task may have the best of either side scored again,
picture and text read together, which needs every such pair. Equal texts are read once, so that they tie.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from blip2sweep.backends.torch.batching import Run
from blip2sweep.backends.torch.sharing import Shared
from blip2sweep.models.images import Features
from blip2sweep.models.language import Matcher
from blip2sweep.models.text import Ids
from blip2sweep.tasks.task import LEFT_OUT, candidates, longest_text, ranked

if TYPE_CHECKING:
    from collections.abc import Callable

    from blip2sweep.tasks.sample import Sample, TaskData

ROWS = 256  # of a matrix that are sorted at once


class Match(NamedTuple):
    """The scores of a picture: against all candidates, or where `texts` is there against those that it numbers.

    asking, asking_scores: the candidates that have the picture among their best.
    """

    scores: list[float]
    texts: list[int] | None = None
    asking: list[int] | None = None
    asking_scores: list[float] | None = None


class Matches:
    """The scores of samples. encoded: image features. language: the model's last stage."""

    def __init__(
        self, run: Run, encoded: Features, task: TaskData, samples: Sequence[Sample], language: Matcher
    ) -> None:
        assert encoded.rows is not None
        self.run, self.pictures, self.language, self.stage = run, encoded.rows, language, run.loaded.anatomy.last_stage
        row = {image_id: i for i, image_id in enumerate(encoded.ids)}
        self.rows, self.k = [row[s.image_id] for s in samples], ranked(task)
        ids = cut(language.reference_ids(candidates(task), False), longest_text(task.rules))
        numbers = {text: i for i, text in enumerate(dict.fromkeys(map(tuple, ids)))}
        self.texts: list[Ids] = [list(text) for text in numbers]
        self.numbers = torch.tensor([numbers[tuple(text)] for text in ids], dtype=torch.long)

    def all(self, shared: Shared | None = None) -> list[Match]:
        """For each sample its scores.

        They come from an earlier cell that had the same input and texts.
        """
        if shared is None:
            return self._computed()
        asked = ["match", self.k, self.rows, self.texts, self.numbers.tolist()]
        key = shared.language_key(self.pictures, asked)
        known = shared.answered.get(key)
        shared.hits[self.stage] = len(known) if known else 0
        found = known or self._computed()
        shared.answered.put(key, found)
        return found

    def _computed(self) -> list[Match]:
        with self.run.clock.stage(self.stage):
            similar = self._similar()
            by_picture = (
                self._ranked(similar) if self.k else [Match(row) for row in _all_numbers(similar[:, self.numbers])]
            )
        return [by_picture[row] for row in self.rows]

    def _similar(self) -> Tensor:
        """(pictures, distinct texts) float32 on the CPU: the contrastive scores."""
        by_length = sorted(range(len(self.texts)), key=lambda i: len(self.texts[i]))
        seen = self._run(len(self.pictures), lambda rows: self.language.seen(self.pictures.take(rows)))
        said = self._run(len(by_length), lambda rows: self.language.said([self.texts[i] for i in by_length[rows]]))
        similar = torch.empty(len(seen), len(said))
        similar[:, by_length] = self._run(len(seen), lambda rows: self.language.similarity(seen[rows], said).cpu())
        return similar

    def _ranked(self, similar: Tensor) -> list[Match]:
        """The scores of the k best texts of each picture, and of the k best pictures of each text."""
        texts = best(similar, self.k, self.numbers)
        pictures = best(similar.T, self.k)
        wanted = torch.zeros_like(similar, dtype=torch.bool)
        wanted[torch.arange(len(similar))[:, None], self.numbers[texts]] = True
        wanted.T[torch.arange(len(self.texts))[:, None], pictures] = True
        scores = self._read_together(similar, wanted)
        asking = [list[int]() for _ in similar]
        for text, number in enumerate(self.numbers.tolist()):
            for picture in pictures[number].tolist():
                asking[picture].append(text)
        rows = zip(scores, texts.sort(1).values.tolist(), asking, strict=True)
        return [Match(self._of(row, own), own, ask, self._of(row, ask)) for row, own, ask in rows]

    def _of(self, row: Tensor, texts: list[int]) -> list[float]:
        return short(row[self.numbers[texts]])

    def _read_together(self, similar: Tensor, wanted: Tensor) -> Tensor:
        """(pictures, distinct texts): of the wanted pairs the score of a pair read together, plus its contrastive one."""
        lengths = torch.tensor([len(text) for text in self.texts])
        i, j = wanted.nonzero(as_tuple=True)
        order = lengths[j].argsort(stable=True)
        i, j = i[order], j[order]
        read = self._run(len(i), lambda rows: self._matched(i[rows].tolist(), j[rows].tolist()))
        scores = torch.full_like(similar, LEFT_OUT)
        scores[i, j] = read + similar[i, j]
        return _numbers(scores)

    def _matched(self, pictures: Sequence[int], texts: Sequence[int]) -> Tensor:
        return self.language.matched(self.pictures.take(pictures), [self.texts[j] for j in texts]).cpu()

    def _run(self, n: int, batch: Callable[[slice], Tensor]) -> Tensor:
        return torch.cat(self.run.sequences.run(n, batch))


def cut(texts: Sequence[Ids], longest: int | None) -> list[Ids]:
    """Texts of at most `longest` tokens: the last one stays, since it ends a text."""
    return [ids if longest is None or len(ids) <= longest else [*ids[: longest - 1], ids[-1]] for ids in texts]


def best(scores: Tensor, k: int, columns: Tensor | None = None) -> Tensor:
    """(rows, min(k, candidates)): the best candidates of each row, in the order of a reversed stable argsort: the later one
    of equals comes first. columns: which column of `scores` a candidate has; None: its own."""
    rows = scores.split(ROWS)
    found = [(x if columns is None else x[:, columns]).argsort(dim=1, stable=True).flip(1)[:, :k] for x in rows]
    return torch.cat(found)


def short(scores: Tensor) -> list[float]:
    """float32 numbers as the shortest decimals that are the same float32: a file of millions is half as long."""
    return [float(str(x)) for x in scores.numpy()]


def _numbers(scores: Tensor) -> Tensor:
    return scores.nan_to_num(LEFT_OUT, -LEFT_OUT, LEFT_OUT)  # a broken model ranks nothing


def _all_numbers(scores: Tensor) -> list[list[float]]:
    found: list[list[float]] = _numbers(scores.double()).tolist()
    return found
