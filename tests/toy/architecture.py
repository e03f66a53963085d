"""An architecture in one file (its YAML: conf/model/toy.yaml): an eye, which sees the mean colours
of a picture's strips, and a talker, which writes words; no connector. Pictures have strips of
different numbers, so that rows are ragged.

It imports torch at the top, which those of the package do not: planning is slower for it.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from blip2sweep.models.architecture import Family, Implementation, Stage
from blip2sweep.models.ragged import Rows
from blip2sweep.models.text import Ids, Likelihood, Text, likelihoods, padded
from blip2sweep.tasks.generation import Generation

# ---- what planning reads

MODEL_TYPE = "toy"
FAMILIES = {"toy": Family(("talker.blocks",), presets="opt")}


def stages(model: Mapping[str, object]) -> tuple[Stage, ...]:
    return (
        Stage("sight", ("eye",), ("eye.blocks",), by_block=True),
        Stage("talk", ("talker",), FAMILIES["toy"].stacks),
    )


def implementation(model: Mapping[str, object]) -> Implementation:
    return sys.modules[__name__]


# ---- the model


class Config(PreTrainedConfig):
    model_type = MODEL_TYPE

    def __init__(
        self,
        width: int = 16,
        eye_blocks: int = 3,
        talker_blocks: int = 2,
        vocab_size: int = 24,
        **rest: Any,
    ):
        self.width, self.vocab_size = width, vocab_size
        self.eye_blocks, self.talker_blocks = eye_blocks, talker_blocks
        super().__init__(**rest)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.sin(3 * self.up(x)))


class Tower(nn.Module):
    """Blocks between what makes tokens and what reads them."""

    def __init__(self, first: nn.Module, blocks: int, width: int, last: nn.Module) -> None:
        super().__init__()
        self.first, self.last = first, last
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class Model(PreTrainedModel):
    config_class = Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        width, words = config.width, config.vocab_size
        norm, head = nn.LayerNorm(width), nn.Linear(width, words)
        self.eye = Tower(nn.Linear(3, width), config.eye_blocks, width, norm)
        self.talker = Tower(nn.Embedding(words, width), config.talker_blocks, width, head)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        for name, parameter in module.named_parameters(recurse=False):
            scales = isinstance(module, nn.LayerNorm) and name == "weight"
            nn.init.normal_(parameter, float(scales), 0.3)


config_class, model_class = Config, Model

WORDS = (
    "the",
    "end",
    *"a red blue green circle square big small left right of".split(),
    *"above below on two three and with no yes one other".split(),
)
END = 1


class Strips:
    """Mean colours of two to `most` horizontal strips: the more, the redder the picture is."""

    def __init__(self, most: int) -> None:
        self.most = most

    def __call__(self, image: Image) -> Tensor:
        colours = torch.from_numpy(np.asarray(image.convert("RGB")).copy()).float() / 255
        count = 2 + int(1000 * float(colours[..., 0].mean())) % (self.most - 1)
        return torch.stack([strip.mean((0, 1)) for strip in colours.tensor_split(count)])

    def to_dict(self) -> dict[str, object]:
        return {"most": self.most}


@dataclass
class Processor:
    image_processor: Strips

    def save_pretrained(self, folder: Path) -> object:
        said = json.dumps(self.image_processor.to_dict())
        return (folder / "processor_config.json").write_text(said)


def config_mistakes(config: Config) -> Iterator[str]:
    if config.vocab_size != len(WORDS):
        yield f"config.json: vocab_size is {config.vocab_size}, there are {len(WORDS)} words"


def read_processor(folder: Path, config: Config) -> tuple[Processor | None, list[str]]:
    try:
        said = json.loads((folder / "processor_config.json").read_text())
        return Processor(Strips(said["most"])), []
    except (OSError, ValueError, KeyError) as error:
        return None, [f"processor_config.json cannot be read ({error!r})"]


def pixels(processor: Processor, image: Image) -> Rows:
    strips = processor.image_processor(image)
    return Rows(strips, (len(strips),), {"size": torch.tensor([image.size])})


# ---- the stages


class Sight:
    """Colours (strips of all pictures, 3) -> features (strips of all pictures, width)."""

    name = "sight"

    def __init__(self, eye: Tower, where: torch.device) -> None:
        self.eye, self.where, self.dtype = eye, where, next(eye.parameters()).dtype

    @property
    def n_blocks(self) -> int:
        return len(self.eye.blocks)

    def run(self, rows: Rows) -> Rows:
        return self.leave(self.blocks(self.enter(rows), 0, self.n_blocks))

    @torch.inference_mode()
    def enter(self, rows: Rows) -> Rows:
        return rows.mapped(lambda x: self.eye.first(x.to(self.where, self.dtype)))

    @torch.inference_mode()
    def blocks(self, state: Rows, start: int, stop: int) -> Rows:
        for block in self.eye.blocks[start:stop]:
            state = state.mapped(block)
        return state

    @torch.inference_mode()
    def leave(self, state: Rows) -> Rows:
        return state.mapped(self.eye.last)


def image_stages(model: Model, where: torch.device) -> tuple[Sight, ...]:
    return (Sight(model.eye, where),)


def language(model: Model, processor: Processor, family: str) -> Talk:
    return Talk(model.talker)


class Talk:
    """The next word follows from the mean of all tokens so far: picture, prompt, own words."""

    tokens = 32

    def __init__(self, talker: Tower) -> None:
        self.talker = talker

    def prompt_ids(self, texts: Sequence[str]) -> list[Ids]:
        return [[zlib.crc32(word.encode()) % len(WORDS) for word in text.split()] for text in texts]

    def reference_ids(self, references: Sequence[str], prompted: bool) -> list[Ids]:
        return [[*ids, END] for ids in self.prompt_ids(references)]

    @torch.inference_mode()
    def prefill(self, pictures: Rows, prompts: Sequence[Ids]) -> Prefilled:
        seen, there = pictures.padded()
        ids, own = padded(prompts, 0, left=False)
        read = self.talker(torch.cat([seen, self.talker.first(ids)], 1))
        kept = torch.cat([there, own.bool()], 1)[..., None]
        return Prefilled(self, (read * kept).sum(1), kept.sum(1))

    def row_bytes(self, generation: Generation) -> int:
        return 2**20

    def as_read(self, prompt: Ids, reference: Ids) -> Ids:
        return prompt + reference[:-1]

    def pictured(self, picture: Rows, text: Ids) -> list[bool]:
        return [True] * picture.tokens(0) + [False] * len(text)

    @torch.inference_mode()
    def read(
        self, pictures: Rows | None, texts: Sequence[Ids], references: Sequence[Ids]
    ) -> Tensor:  # fmt: skip
        words = self.talker.first(torch.tensor(texts, dtype=torch.long))
        seen = [] if pictures is None else [pictures.padded()[0]]
        return self.talker(torch.cat([*seen, words], 1))

    def logits(self, output: Tensor) -> Tensor:
        return self.talker.last(output)

    def in_stream(self, path: str) -> bool:
        return True


@dataclass
class Prefilled:
    """total (rows, width) and count (rows, 1) of the tokens so far."""

    talk: Talk
    total: Tensor
    count: Tensor

    def _next(self, total: Tensor, count: Tensor) -> Tensor:
        return self.talk.talker.last(total / count)

    @torch.inference_mode()
    def likelihood(self, references: Sequence[Ids]) -> list[Likelihood]:
        ids, kept = padded(references, 0, left=False)
        written = self.talk.talker(self.talk.talker.first(ids[:, :-1]))
        before = torch.cat([torch.zeros_like(self.total)[:, None], written], 1)
        steps = torch.arange(before.shape[1])[:, None]
        logits = self._next(self.total[:, None] + before.cumsum(1), self.count[:, None] + steps)
        return likelihoods(logits[kept.bool()], ids, kept, references)

    @torch.inference_mode()
    def generate(self, generation: Generation) -> list[Text]:
        total, count, written = self.total, self.count, list[Tensor]()
        for _ in range(generation.max_new_tokens):
            written.append(self._next(total, count).argmax(-1))
            total, count = total + self.talk.talker(self.talk.talker.first(written[-1])), count + 1
        return [_text(row) for row in torch.stack(written, 1).tolist()]


def _text(ids: Ids) -> Text:
    words = ids[: ids.index(END)] if END in ids else ids
    return Text(" ".join(WORDS[i] for i in words), len(words))


def write(folder: Path) -> Path:
    """A random checkpoint."""
    torch.manual_seed(0)
    Model(Config()).save_pretrained(folder)
    Processor(Strips(5)).save_pretrained(folder)
    return folder
