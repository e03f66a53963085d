"""What a small random model of a checkpoint's structure shows: which layers reach nothing, and which adapter is right."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from blip2sweep.models.discovery.tree import Found
from blip2sweep.models.image_text.adapter import CHOICES, Adapter
from blip2sweep.models.image_text.chat import IMAGE, TEMPLATE, USER, Chat
from blip2sweep.models.image_text.language import Decoder
from blip2sweep.models.image_text.pixels import TEXT, Arguments, decoded, feature_rows, pixel_rows
from blip2sweep.models.image_text.vision import Connector, Tower, Vision
from blip2sweep.models.ragged import Rows, joined
from blip2sweep.models.text import Prompt
from blip2sweep.tasks.generation import Generation

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

QUESTIONS = ("What is this?", "a b")
CPU = torch.device("cpu")
SETTINGS = Generation(prompt=None, num_beams=1, max_new_tokens=8)


def random_model(cls: type[PreTrainedModel], config: object) -> PreTrainedModel:
    """A model whose every weight, gate and scale is drawn at random."""
    torch.manual_seed(0)
    model = cls(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        scale = 1 / math.sqrt(parameter[0].numel()) if parameter.dim() > 1 else 0.3
        parameter.data.normal_(float(parameter.dim() == 1), scale)
    model.tie_weights()
    return model


def pictures() -> list[Image.Image]:
    """One picture for each question, of different shapes."""
    rng, shapes = np.random.default_rng(0), [(48, 64), (64, 43)]
    return [Image.fromarray(rng.integers(0, 255, (*s, 3), dtype=np.uint8)) for s in shapes]


def asked(processor: ProcessorMixin, chat: str | None, image: Image.Image, question: str) -> dict[str, Tensor]:
    """What a processor makes by itself. A text that is neither a template nor nothing is what it writes by itself."""
    text = Chat(processor, chat if chat == TEMPLATE else None).around(question)
    bos = processor.tokenizer.bos_token
    special = not (bos and text.startswith(bos))
    made = processor(text=[text], images=[[image]], return_tensors="pt", add_special_tokens=special)
    return {k: v for k, v in made.items() if isinstance(v, Tensor) and k != "labels"}


def chat_of(processor: ProcessorMixin, template: bool) -> str | None:
    """What stands around the user's text: the first of the template, nothing, and what the processor writes by itself that
    gives the processor's own tokens. Raises NotProven where none does."""
    for chat in (*([TEMPLATE] if template else []), None, _written(processor)):
        if all(_same_tokens(processor, chat, *pair) for pair in zip(pictures(), QUESTIONS, strict=True)):
            return chat
    raise NotProven("the processor writes other tokens than its chat template, or than the picture and the text alone")


def _same_tokens(processor: ProcessorMixin, chat: str | None, image: Image.Image, question: str) -> bool:
    own = Chat(processor, chat)
    (prompt,) = own.prompts([question])
    ids = own.with_picture(cast("Prompt", prompt), decoded(pixel_rows(processor, image).further[TEXT][0]))
    return list(ids) == asked(processor, chat, image, question)["input_ids"][0].tolist()


def _written(processor: ProcessorMixin) -> str:
    image, question = pictures()[0], "QUESTION"
    ids = asked(processor, None, image, question)["input_ids"][0].tolist()
    picture = decoded(pixel_rows(processor, image).further[TEXT][0])
    return processor.tokenizer.decode(ids).replace(picture, IMAGE).replace(question, USER)


@dataclass
class Small:
    """A small random model with the checkpoint's own processor, and two questions about two pictures."""

    model: PreTrainedModel
    processor: ProcessorMixin
    chat: str | None

    def __post_init__(self) -> None:
        self.images = pictures()
        self.rows = [pixel_rows(self.processor, image) for image in self.images]

    def inputs(self, i: int) -> dict[str, Tensor]:
        """What transformers' own processor makes of a picture and a question."""
        return asked(self.processor, self.chat, self.images[i], QUESTIONS[i])

    # ---- layers that reach nothing

    @torch.inference_mode()
    def unread(self, found: Sequence[Found]) -> Iterator[tuple[Found, dict[str, list[int]]]]:
        """(list, {layer: the blocks in which changing its weight changes no bit of the last token's logits})."""
        given = self.inputs(0)
        before = self.model(**given, logits_to_keep=1).logits
        if not torch.equal(before, self.model(**given, logits_to_keep=1).logits):
            raise NotProven("two passes over one picture give different numbers")
        for one in found:
            dead: dict[str, list[int]] = {}
            for (i, path), name in itertools.product(enumerate(one.block_paths()), one.layers):
                layer = self.model.get_submodule(f"{path}.{name}")
                assert isinstance(layer, nn.Linear)
                kept, layer.weight.data = layer.weight.data, layer.weight.data + torch.randn_like(layer.weight)
                if torch.equal(self.model(**given, logits_to_keep=1).logits, before):
                    dead.setdefault(name, []).append(i)
                layer.weight.data = kept
            yield one, dead

    # ---- the adapter

    @torch.inference_mode()
    def features(self, tower: Found, unread: int) -> list[Rows]:
        """The features of each picture. Raises NotProven where stopping before a block changes a bit of them."""
        blocks = list(self.model.get_submodule(tower.path))
        own = Tower(self.model, CPU, blocks, len(blocks) - unread, behind=())  # all of it is float32
        return [self._checked(rows, Vision(own), Connector(own)) for rows in self.rows]

    def _checked(self, rows: Rows, vision: Vision, connector: Connector) -> Rows:
        out = self.model.model.get_image_features(
            **Arguments(self.model, CPU)(rows, torch.float32), return_dict=True
        )  # fmt: skip
        whole = feature_rows(out.pooler_output, getattr(out, "deepstack_features", None) or (), rows)
        for k in range(vision.n_blocks + 1):
            state = vision.blocks(vision.blocks(vision.enter(rows), 0, k), k, vision.n_blocks)
            if not torch.equal(connector.run(vision.leave(state)).values, whole.values):
                raise NotProven(f"features differ where the vision tower is entered before block {k}")
        return whole

    def adapter(self, features: Sequence[Rows]) -> dict[str, object]:
        """The first choice of adapter whose greedy tokens are those of the model's own `generate`, without defaults."""
        wanted = [self._generated(i) for i in range(len(QUESTIONS))]
        reasons = dict[str, None]()
        for choice in itertools.product(*CHOICES.values()):
            given = dict(zip(CHOICES, choice, strict=True))
            try:
                found = self._by_stages(Adapter(**given), features)  # type: ignore[arg-type]
            except Exception as error:  # of any kind: what a model says to arguments that it does not take
                reasons[f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"] = None
                continue
            if found == wanted:
                return {k: v for k, v in given.items() if v != CHOICES[k][0]}
        why = f" ({next(iter(reasons))})" if reasons else ""
        raise NotProven(f"no choice of adapter writes the tokens of the model's own generate{why}")

    def _by_stages(self, adapter: Adapter, features: Sequence[Rows]) -> list[tuple[str, int]]:
        language = Decoder(self.model, self.processor, Chat(self.processor, self.chat), adapter)
        prompts = language.prompt_ids(QUESTIONS)
        together = language.prefill(joined(features), prompts).generate(SETTINGS)
        alone = [language.prefill(f, [p]).generate(SETTINGS)[0] for f, p in zip(features, prompts, strict=True)]
        if list(map(tuple, together)) != list(map(tuple, alone)):
            raise NotProven("rows together write other texts than alone")
        return [tuple(text) for text in together]  # type: ignore[misc]

    @torch.inference_mode()
    def _generated(self, i: int) -> tuple[str, int]:
        given = self.inputs(i)
        language = Decoder(self.model, self.processor, Chat(self.processor, self.chat), Adapter())
        settings = {"max_new_tokens": SETTINGS.max_new_tokens, "do_sample": False, "pad_token_id": language.base.pad}
        ids = self.model.generate(**given, eos_token_id=language.base.ends, **settings)
        (text,) = language.base.texts(ids[:, given["input_ids"].shape[1] :].tolist())
        return tuple(text)  # type: ignore[return-value]


class NotProven(Exception):
    """What the small model does otherwise than the adapter. The message is a reason for a refusal."""


def behind(dead: Mapping[str, list[int]], found: Found) -> tuple[int, dict[str, int]]:
    """(last blocks that reach nothing, {layer: in how many more of the last blocks it reaches nothing}).

    Raises NotProven where a layer reaches nothing in a block before one in which it does.
    """
    n, counts = found.n or 1, {name: len(dead.get(name, ())) for name in found.layers}
    for name, blocks in dead.items():
        if blocks != list(range(n - len(blocks), n)):
            raise NotProven(f"{found.path}: {name} reaches nothing in blocks {', '.join(map(str, blocks))}")
    whole = min(counts.values())
    return whole, {name: count - whole for name, count in counts.items() if count > whole}
