"""Training batches. Each is a pure function of (spec, step), so a run can be repeated, or resumed, exactly."""

from __future__ import annotations

import multiprocessing as mp
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerFast

from blip2sweep.tasks import scenes

from .words import EOS, Wording, plain_caption

# Question slots of a scene. 'Other' questions learn slowest and need half of the ordinary slots.
SLOT_TYPES = {"o": "other", "n": "number", "y": "yes/no", "r": "relation"}
LEFT_OUT = -100  # label of a position without a loss


@dataclass(frozen=True)
class BatchSpec:
    """What batches are made of; the first `cell_steps` batches carry no text."""

    seed: int
    steps: int
    cell_steps: int
    cell_batch: int = 64
    batch: int = 32
    n_captions: int = 2
    slots: str = "onoyron"
    hard_fraction: float = 0.75  # reached after `ramp` text steps; the first batches are easy
    ramp: int | None = None  # None: half of the text steps

    @property
    def n_segments(self) -> int:
        return self.n_captions + len(self.slots)


class Text(NamedTuple):
    """Packed text of a batch, each int64 (batch, length): all segments of a scene in one row.

    `labels` are shifted already (position k predicts labels[k]); `segments` is -1 on padding.
    """

    ids: np.ndarray
    labels: np.ndarray
    positions: np.ndarray
    segments: np.ndarray


class Batch(NamedTuple):
    """`images` uint8 (batch, 48, 48, 3); `cells` int64 (batch, 9, 3): shape, colour, size of a cell, 0 where empty."""

    images: np.ndarray
    cells: np.ndarray
    text: Text | None


def hard_fraction(spec: BatchSpec, step: int) -> float:
    """Share of hard scenes at a step: none at first, then a ramp over `ramp` text steps."""
    text_step, text_steps = step - spec.cell_steps, max(1, spec.steps - spec.cell_steps)
    progress = text_step / spec.ramp if spec.ramp else 2 * (text_step / text_steps)
    return spec.hard_fraction * min(1.0, max(0.0, progress))


def _cells(things: list[scenes.Thing]) -> np.ndarray:
    """The scene as classes, int64 (9, 3)."""
    table = np.zeros((scenes.GRID**2, 3), np.int64)
    for thing in things:
        classes = (scenes.SHAPES.index(thing.shape), scenes.COLORS.index(thing.color), scenes.SIZES.index(thing.size))
        table[thing.cell] = np.array(classes) + 1
    return table


def _examples(
    things: list[scenes.Thing], rng: random.Random, spec: BatchSpec, wording: Wording
) -> list[tuple[str, str]]:
    """Prompt and target of every segment of one scene: captions first, then one question a slot."""
    captions = [plain_caption(caption) for caption in scenes.captions(things, rng)[: spec.n_captions]]
    pairs = [(wording.caption, caption) for caption in captions]
    for slot in spec.slots:
        wanted = SLOT_TYPES[slot]
        relational = wanted == "relation"
        made = scenes.yes_no_question(things, rng, True) if relational else scenes.question(things, rng, wanted)
        pairs.append((wording.question.format(made.text), made.answer))
    return [(prompt, wording.target(prompt, text)) for prompt, text in pairs]


def _pack(tokenizer: PreTrainedTokenizerFast, rows: list[list[tuple[str, str]]], wording: Wording) -> Text:
    """Tokenize and lay the segments of each row one after the other; positions restart at each segment."""
    given = [prompt for row in rows for prompt, _ in row]
    prompts = iter(tokenizer(given, add_special_tokens=wording.special).input_ids)
    targets = iter(tokenizer([target for row in rows for _, target in row], add_special_tokens=False).input_ids)
    tokens = [[(next(prompts), [*next(targets), EOS]) for _ in row] for row in rows]
    shape = (len(rows), max(sum(len(p) + len(t) for p, t in row) for row in tokens))
    text = Text(*(np.full(shape, fill, np.int64) for fill in (tokenizer.pad_token_id, LEFT_OUT, 0, -1)))
    for i, row in enumerate(tokens):
        start = 0
        for k, (prompt, target) in enumerate(row):
            end = start + len(prompt) + len(target)
            text.ids[i, start:end] = prompt + target
            text.labels[i, start + len(prompt) - 1 : end - 1] = target
            text.positions[i, start:end] = wording.first + np.arange(end - start)
            text.segments[i, start:end] = k
            start = end
    return text


def make_batch(tokenizer: PreTrainedTokenizerFast, spec: BatchSpec, wording: Wording, step: int) -> Batch:
    """The batch of a step, from fresh scenes."""
    rng, nrng = random.Random(f"{spec.seed}-{step}"), np.random.default_rng([spec.seed, step])
    n = spec.cell_batch if step < spec.cell_steps else spec.batch
    drawn = [scenes.scene(rng) for _ in range(n)]
    hard = hard_fraction(spec, step)
    looks = [scenes.HARD if rng.random() < hard else scenes.EASY for _ in drawn]
    images = np.stack([scenes.render(things, nrng, look) for things, look in zip(drawn, looks, strict=True)])
    cells = np.stack([_cells(things) for things in drawn])
    if step < spec.cell_steps:
        return Batch(images, cells, None)
    rows = [_examples(things, rng, spec, wording) for things in drawn]
    return Batch(images, cells, _pack(tokenizer, rows, wording))


def _feed(queue: mp.Queue, tokenizer: PreTrainedTokenizerFast, spec: BatchSpec, wording: Wording, first: int) -> None:
    for step in range(first, spec.steps):
        queue.put(make_batch(tokenizer, spec, wording, step))


def batches(
    tokenizer: PreTrainedTokenizerFast, spec: BatchSpec, wording: Wording, first: int = 0
) -> Iterator[tuple[int, Batch]]:
    """Steps and batches from step `first` on, made ahead by a second process."""
    context = mp.get_context("fork")
    queue = context.Queue(12)
    feeder = context.Process(target=_feed, args=(queue, tokenizer, spec, wording, first), daemon=True)
    feeder.start()
    for step in range(first, spec.steps):
        yield step, queue.get()
    feeder.join()
