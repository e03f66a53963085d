"""The scores of pictures against texts, for tasks that request a match.

The contrastive score needs each picture and each text once. The best candidates by it may be scored again, picture and
text read together, which needs every such pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blip2sweep.backends.torch.batching import Run
from blip2sweep.backends.torch.sharing import Shared
from blip2sweep.models.images import Features
from blip2sweep.models.language import Matcher
from blip2sweep.tasks.task import candidates, reranked

if TYPE_CHECKING:
    from collections.abc import Callable

    from blip2sweep.tasks.sample import Sample, TaskData

LEFT_OUT = (
    -100.0
)  # the score of a candidate that is not scored again, as LAVIS has it (lavis/models/blip2_models/blip2.py)


class Matches:
    """The scores of samples. encoded: image features. language: the model's last stage."""

    def __init__(
        self, run: Run, encoded: Features, task: TaskData, samples: Sequence[Sample], language: Matcher
    ) -> None:
        assert encoded.rows is not None
        self.run, self.pictures, self.language, self.stage = run, encoded.rows, language, run.loaded.anatomy.last_stage
        row = {image_id: i for i, image_id in enumerate(encoded.ids)}
        self.rows, self.again = [row[s.image_id] for s in samples], reranked(task.rules)
        self.texts = language.reference_ids(candidates(task), False)

    def all(self, shared: Shared | None = None) -> list[list[float]]:
        """For each sample its scores against each candidate of the task.

        They come from an earlier cell that had the same input and texts.
        """
        if shared is None:
            return self._computed()
        key = shared.language_key(self.pictures, ["match", self.again, self.rows, self.texts])
        known = shared.answered.get(key)
        shared.hits[self.stage] = len(known) if known else 0
        scores = known or self._computed()
        shared.answered.put(key, scores)
        return scores

    def _computed(self) -> list[list[float]]:
        with self.run.clock.stage(self.stage):
            scores = self._scores().double().nan_to_num(LEFT_OUT, -LEFT_OUT, LEFT_OUT)  # a broken model ranks nothing
        by_picture = scores.tolist()
        return [by_picture[row] for row in self.rows]

    def _scores(self) -> Tensor:
        """(pictures, texts) float32 on the CPU."""
        by_length = sorted(range(len(self.texts)), key=lambda i: len(self.texts[i]))
        seen = self._run(len(self.pictures), lambda rows: self.language.seen(self.pictures.take(rows)))
        said = self._run(len(by_length), lambda rows: self.language.said([self.texts[i] for i in by_length[rows]]))
        similar = torch.empty(len(seen), len(said))
        similar[:, by_length] = self._run(len(seen), lambda rows: self.language.similarity(seen[rows], said).cpu())
        return self._reranked(similar, min(self.again, len(self.texts))) if self.again else similar

    def _reranked(self, similar: Tensor, k: int) -> Tensor:
        """The score of a pair read together, plus its contrastive one, for the k best texts of each picture."""
        best = similar.argsort(dim=1, stable=True).flip(1)[:, :k]  # ties as numpy's argsort, reversed
        pairs = sorted(
            ((i, j) for i, row in enumerate(best.tolist()) for j in row), key=lambda pair: len(self.texts[pair[1]])
        )
        read = self._run(len(pairs), lambda rows: self._matched(pairs[rows]))
        scores, (i, j) = torch.full_like(similar, LEFT_OUT), torch.tensor(pairs).T
        scores[i, j] = read + similar[i, j]
        return scores

    def _matched(self, pairs: Sequence[tuple[int, int]]) -> Tensor:
        pictures = self.pictures.take([i for i, _ in pairs])
        return self.language.matched(pictures, [self.texts[j] for _, j in pairs]).cpu()

    def _run(self, n: int, batch: Callable[[slice], Tensor]) -> Tensor:
        return torch.cat(self.run.sequences.run(n, batch))
