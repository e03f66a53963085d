"""What a model is trained on, as it reads it: pictures as the first trained stage sees them, prompts and references."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from blip2sweep.errors import UserError
from blip2sweep.models.images import Features, load_pixels
from blip2sweep.models.language import Learning, Matcher
from blip2sweep.models.learning import learning
from blip2sweep.models.load import Loaded
from blip2sweep.models.pixel_store import PixelStore
from blip2sweep.models.ragged import Rows
from blip2sweep.models.text import Ids
from blip2sweep.tasks.question_text import prompts
from blip2sweep.tasks.training import Row, Training

LEARNS = "right: an architecture whose passes can learn (docs/extending.md)"
SIZE = 32  # pictures that untrained stages see at a time. It decides the last digits, so nothing chooses it


class Read(NamedTuple):
    """One batch for the language model, row by row. pictures: numbers of rows of `Pictures.rows`."""

    pictures: list[int]
    prompts: list[Ids]
    references: list[Ids]

    @property
    def labels(self) -> list[int]:
        return [token for row in self.references for token in row]

    def share(self, rank: int, count: int) -> Read:
        """Every `count`-th row."""
        return self.picked(range(rank, len(self.prompts), count))

    def picked(self, rows: Sequence[int]) -> Read:
        """The rows of these numbers."""
        pictures, prompts = [self.pictures[i] for i in rows], [self.prompts[i] for i in rows]
        return Read(pictures, prompts, [self.references[i] for i in rows])

    def pieces(self, size: int) -> Iterator[Read]:
        """Runs of at most `size` rows."""
        rows = range(len(self.prompts))
        return (self.picked(rows[start : start + size]) for start in rows[::size])


class Texts:
    """The token ids of rows to learn: of `training.rows` and of `training.held_out_rows`."""

    def __init__(self, loaded: Loaded, training: Training) -> None:
        self.language, self.training = loaded.language, training
        self.learnt = self._tokens(training.rows)
        self.held_out = self._tokens(training.held_out_rows)

    def _tokens(self, rows: Sequence[Row]) -> Read:
        data, chosen = self.training.data, self.training
        samples, image = [data.samples[row.sample] for row in rows], {x: i for i, x in enumerate(data.images)}
        asked = prompts(data.rules, samples, chosen.prompt, chosen.question)
        references = self.language.reference_ids([row.target for row in rows], bool(chosen.prompt))
        return Read([image[s.image_id] for s in samples], self.language.prompt_ids(asked), references)


class Pictures:
    """Pictures behind the first `done` image stages, computed once: these stages learn nothing."""

    def __init__(self, loaded: Loaded, pixels: Features, done: int) -> None:
        self.loaded, self.pixels, self.done = loaded, pixels, done

    @cached_property
    def rows(self) -> Rows:
        assert self.pixels.rows is not None
        if not self.done:
            return self.pixels.rows
        store = PixelStore(len(self.pixels.rows))
        for rows in self.pixels.rows.split(SIZE):
            store.add(self._seen(rows))
        found = store.rows()
        if found is None:
            raise MemoryError("neither memory nor TMPDIR has room for what training sees of its pictures")
        return found

    @torch.no_grad()
    def _seen(self, rows: Rows) -> Rows:
        with learning():
            for stage in self.loaded.images[: self.done]:
                rows = stage.run(rows)
        return rows.everywhere(Tensor.cpu)

    def logits(self, read: Read) -> Tensor:
        """(tokens of all references, vocabulary) float32, through the rest of the model."""
        device = self.loaded.device
        rows = self.rows.take(read.pictures).everywhere(lambda x: x.to(device))
        with learning():
            for stage in self.loaded.images[self.done :]:
                rows = stage.run(rows)
            prefilled = self.loaded.language.prefill(rows, read.prompts)
            if not isinstance(prefilled, Learning):
                raise UserError(f"recover: {self.loaded.anatomy.model} has no logits to train on; {LEARNS}")
            return prefilled.logits(read.references).float()


def pixels_of(loaded: Loaded, training: Training, workers: int = 0) -> Features:
    """The pixels of all training images. Raises UserError for one that cannot be read, or that has changed."""
    return load_pixels(loaded, training.data, workers=workers, on_bad_image="error")


def untrained(loaded: Loaded, paths: Sequence[str]) -> int:
    """How many image stages come before the first one that has a layer of `paths`."""
    stages = [s.name for s in loaded.anatomy.stages]
    trained = {p.stage for p in loaded.anatomy.parts.values() if any(x.path in set(paths) for x in p.linears)}
    return min(min(stages.index(name) for name in trained), len(loaded.images))


def check_learns(loaded: Loaded) -> None:
    """Raise UserError for a model that writes no text."""
    if isinstance(loaded.language, Matcher):
        raise UserError(
            f"recover: {loaded.anatomy.model} scores pictures against texts and writes none; right: recover=none"
        )
