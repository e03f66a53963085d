"""The calibration samples as each stage sees them: the outputs of the stages before, and texts behind pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import NamedTuple

import torch
from torch import Tensor

from blip2sweep.models.images import load_pixels
from blip2sweep.models.language import Language
from blip2sweep.models.load import Loaded
from blip2sweep.models.part import Linear
from blip2sweep.models.ragged import Rows, joined
from blip2sweep.models.text import Ids, lengths
from blip2sweep.tasks.calibration import Calibration
from blip2sweep.tasks.question_text import prompts


class Batch(NamedTuple):
    """One batch of a stage.

    run: runs the stage on it. weights (tokens): of the tokens of its stream of pictures and text, None where all count
    1.
    """

    run: Callable[[], object]
    weights: Tensor | None = None


class CalibrationBatches:
    """The batches of each stage. Features are computed on first use, by the model as it is then."""

    def __init__(self, loaded: Loaded, calibration: Calibration, workers: int = 0) -> None:
        self.loaded, self.calibration, self.workers = loaded, calibration, workers
        self.size, self.language = calibration.batch, loaded.language
        self._inputs: list[list[Rows]] = []  # of each image stage, batch by batch

    @cached_property
    def pixels(self) -> Rows:
        features = load_pixels(self.loaded, self.calibration.data, batch_size=self.size, workers=self.workers)
        assert features.rows is not None
        return features.rows

    def batches(self, stage: str) -> list[Batch]:
        """The batches of a stage, by its name."""
        for i, own in enumerate(self.loaded.images):
            if own.name == stage:
                return [Batch(partial(own.run, rows)) for rows in self._into(i)]
        return [self._language(group) for group in self._groups()]

    def _into(self, stage: int) -> list[Rows]:
        """The inputs of image stage number `stage`."""
        if not self._inputs:
            self._inputs.append(self.pixels.split(self.size))
        while len(self._inputs) <= stage:
            before = self.loaded.images[len(self._inputs) - 1]
            # Clones, because tensors of inference mode may not be used outside of it.
            self._inputs.append([before.run(rows).everywhere(Tensor.clone) for rows in self._inputs[-1]])
        return self._inputs[stage]

    @cached_property
    def _pictures(self) -> Rows:
        """What the language model sees of all images."""
        *_, last = self.loaded.images
        made = [last.run(rows) for rows in self._into(len(self.loaded.images) - 1)]
        return joined(made).everywhere(Tensor.clone)

    # ---- the language model

    @cached_property
    def _texts(self) -> tuple[list[Ids], list[Ids]]:
        """The prompts and first targets of the samples, as token ids."""
        chosen, data = self.calibration, self.calibration.data
        asked = prompts(data.rules, data.samples, chosen.prompt, chosen.question)
        answers = [data.rules.targets(s, 1)[0] for s in data.samples]
        return self.language.prompt_ids(asked), self.language.reference_ids(answers, bool(chosen.prompt))

    @cached_property
    def _rows(self) -> list[int]:
        """For each sample the row of its image."""
        row = {image_id: i for i, image_id in enumerate(self.calibration.data.images)}
        return [row[s.image_id] for s in self.calibration.data.samples]

    def _layout(self, sample: int, text: Ids) -> tuple[bool, ...]:
        """For each token that is read of a sample, whether it is one of its picture's."""
        if self.calibration.text_only:
            return ()
        return tuple(self.language.pictured(self._pictures.take([self._rows[sample]]), text))

    def _tokens(self, sample: int) -> int:
        """The number of tokens of the sample's picture."""
        return 0 if self.calibration.text_only else self._pictures.tokens(self._rows[sample])

    def _groups(self) -> list[list[int]]:
        """Samples grouped by equal lengths and places of the picture's tokens.

        So no batch has padding, which would be measured as well, and one row of token weights is all rows'. Pictures
        of as many tokens may still differ in the text that the processor puts between their tiles.
        """
        prompts, references = self._texts
        groups: dict[tuple[object, ...], list[int]] = {}
        for i, (p, r) in enumerate(zip(prompts, references, strict=True)):
            layout = self._layout(i, self.language.as_read(p, r))
            groups.setdefault((self._tokens(i), layout, *lengths(p), len(r)), []).append(i)
        return [g[k : k + self.size] for g in groups.values() for k in range(0, len(g), self.size)]

    def _language(self, group: Sequence[int]) -> Batch:
        prompts, references = ([x[i] for i in group] for x in self._texts)
        texts = [self.language.as_read(p, r) for p, r in zip(prompts, references, strict=True)]
        return Batch(partial(self._read, group, texts, references), self._weights(group, texts[0]))

    def _weights(self, group: Sequence[int], text: Ids) -> Tensor | None:
        weight = self.calibration.image_token_weight
        if weight == 1 or self.calibration.text_only:
            return None
        picture = self._pictures.take([self._rows[group[0]]])
        row = torch.tensor([weight if own else 1.0 for own in self.language.pictured(picture, text)])
        return row.repeat(len(group))

    def _read(self, group: Sequence[int], texts: Sequence[Ids], references: Sequence[Ids]) -> object:
        pictures = None if self.calibration.text_only else self._pictures.take([self._rows[i] for i in group])
        return self.language.read(pictures, texts, references)


def token_weights(language: Language, layer: Linear, batch: Batch) -> Tensor | None:
    """The weights of a layer's inputs, one for each token.

    None where the inputs are not tokens of the stream of pictures and text, or where all count 1.
    """
    return batch.weights if language.in_stream(layer.path) else None
