"""The last stage: tokens with placeholders, and features of pictures in their place, through the whole model's forward.

Prompts are padded on the left. The placeholders of a row are those that the processor writes for its picture. A row
with another number of placeholders than features is an error: transformers would run without pictures silently.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPooling

from blip2sweep.models.image_text.adapter import Adapter
from blip2sweep.models.image_text.chat import Chat
from blip2sweep.models.image_text.pixels import ENTRIES, ENTRY, GRID, TEXT, decoded
from blip2sweep.models.image_text.positions import Positions
from blip2sweep.models.image_text.prefilled import Prefilled
from blip2sweep.models.image_text.prefix import Prefix, prefix_of, reads_forward
from blip2sweep.models.last_block import last_tokens_alone
from blip2sweep.models.learning import inference
from blip2sweep.models.ragged import Rows
from blip2sweep.models.text import Ids, Prompt, Tokens, padded
from blip2sweep.models.work import Asked

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin
    from transformers.modeling_outputs import ModelOutput

    from blip2sweep.tasks.generation import Generation


@dataclass
class PictureFeatures(BaseModelOutputWithPooling):
    """deepstack_features: a field, because accelerate copies an output to another device field by field."""

    deepstack_features: list[list[Tensor]] | None = None


class Decoder:
    """A `Language` (blip2sweep/models/language.py)."""

    tokens = 1024  # an upper estimate for a picture and a prompt

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, chat: Chat, adapter: Adapter) -> None:
        self.model, self.chat, self.adapter = model, chat, adapter
        self.base = Tokens(model, processor.tokenizer)
        self.image_token, self.text = int(model.config.image_token_id), model.config.get_text_config()
        self.positions, self.end = Positions(model, adapter), chat.end(self.base.ends)
        self.known = inspect.signature(type(model).forward).parameters
        self._longer: dict[str, int] = {}  # {text of a picture: how many tokens it has besides its placeholder's}

    def prompt_ids(self, texts: Sequence[str]) -> list[Ids]:
        return self.chat.prompts(texts)

    def reference_ids(self, references: Sequence[str], prompted: bool) -> list[Ids]:
        return self.chat.references(references, self.end, prompted)

    @inference
    def prefill(self, pictures: Rows, prompts: Sequence[Ids]) -> Prefilled:
        ids = [self._ids(pictures, i, p) for i, p in enumerate(prompts)]
        inputs = self.inputs(pictures, ids)
        place, cache = self.positions(inputs), DynamicCache()
        with last_tokens_alone(self.model):
            out = self.model(
                **inputs, position_ids=place.ids, past_key_values=cache, use_cache=True, logits_to_keep=1,
                mm_encoder_outputs=self.features(pictures),
            )  # fmt: skip
        return Prefilled(self, ids, pictures, inputs["attention_mask"], cache, out.logits[:, -1], place.delta)

    @property
    def shares(self) -> bool:
        """See `Sharing` (blip2sweep/models/language.py)."""
        return reads_forward(self.model)

    def prefix(self, pictures: Rows, rows: Sequence[int], prompts: Sequence[Ids]) -> Prefix | None:
        """See `Sharing` (blip2sweep/models/language.py)."""
        return prefix_of(self, pictures, rows, [self._ids(pictures, *pair) for pair in zip(rows, prompts, strict=True)])

    def _ids(self, pictures: Rows, row: int, prompt: Ids) -> Ids:
        """The token ids of a prompt with its picture. Raises RuntimeError for another number of placeholders."""
        ids = self.chat.with_picture(cast("Prompt", prompt), decoded(pictures.further[TEXT][row]))
        if ids.count(self.image_token) != pictures.tokens(row):
            raise RuntimeError(
                f"{ids.count(self.image_token)} placeholders for {pictures.tokens(row)} features of a picture"
            )
        return ids

    def asked(self, pictures: Rows, row: int, prompt: Ids) -> Asked | None:
        """What is read of a picture and a prompt. None for pictures of a cache that does not say how many tiles they had.

        The text of a picture begins and ends with special tokens, so its tokens are the same in every prompt.
        """
        further, text = pictures.further, decoded(pictures.further[TEXT][row])
        if ENTRIES not in further:
            return None
        if text not in self._longer:
            self._longer[text] = len(self.chat.with_picture(cast("Prompt", prompt), text)) - len(prompt)
        n, entry = int(further[ENTRIES][row]), tuple(further[ENTRY][row].tolist())
        grid = tuple(further[GRID][row].tolist()) if GRID in further else None
        return Asked((len(prompt) + self._longer[text],), entries=n, entry=entry, grid=grid)

    def inputs(self, pictures: Rows, rows: Sequence[Ids], written: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Tokens and what the forward wants beside them, padded on the left.

        written: how many of the last tokens of each row stand behind its prompt; none by default.
        """
        device = self.model.get_input_embeddings().weight.device
        ids, mask = (x.to(device) for x in padded(rows, self.base.pad, left=True))
        found = {"input_ids": ids, "attention_mask": mask}
        there = (ids == self.image_token).long()
        if "mm_token_type_ids" in self.known:
            found["mm_token_type_ids"] = there
        if "token_type_ids" in self.known:
            found["token_type_ids"] = there if self.adapter.token_types == "image" else _behind(ids, written)
        if "image_grid_thw" in self.known and "image_grid_thw" in pictures.further:
            found["image_grid_thw"] = pictures.further["image_grid_thw"].to(device)
        return found

    def features(self, pictures: Rows) -> dict[str, BaseModelOutputWithPooling]:
        """`mm_encoder_outputs` of rows, made anew for each call: `generate` with beams changes it in place.

        Stacked features are (pictures or tiles, tokens, width). With beams `generate` finds the pictures of a text by
        counting their tokens, so the entries have to be of one size and may be no longer than a picture.
        """
        width = self.model.get_input_embeddings().weight.shape[1]
        each = [x.split(width, -1) for x in pictures.values.split(list(pictures.lengths or ()))]
        out = PictureFeatures(pooler_output=[x[0] for x in each])
        if len(each[0]) > 1:
            out.deepstack_features = [[x[level] for x in each] for level in range(1, len(each[0]))]
        if self.adapter.features == "stacked":
            an_entry = math.gcd(*(len(x) for x in out.pooler_output))
            out.pooler_output = torch.cat(out.pooler_output).unflatten(0, (-1, an_entry))
        return {"image": out}

    def row_bytes(self, generation: Generation) -> int:
        text, size = self.text, self.model.get_input_embeddings().weight.element_size()
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        width = heads * (getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)
        a_token = 2 * text.num_hidden_layers * width * size
        return a_token * (self.tokens + generation.max_new_tokens) * generation.num_beams

    # ---- one pass over rows of one length

    def as_read(self, prompt: Ids, reference: Ids) -> Ids:
        """The prompt, and behind it the reference without its end."""
        return Prompt([*prompt, *reference[:-1]], cast("Prompt", prompt).text)

    def pictured(self, picture: Rows, text: Ids) -> list[bool]:
        prompt = cast("Prompt", text)
        own = self._ids(picture, 0, prompt)
        behind = len(text) - len(self.chat.ids(prompt.text))
        return [x == self.image_token for x in own] + [False] * behind

    @inference
    def read(self, pictures: Rows | None, texts: Sequence[Ids], references: Sequence[Ids]) -> ModelOutput:
        prompts = [cast("Prompt", t) for t in texts]
        if pictures is None:
            rows = [self.chat.without_picture(p) for p in prompts]
        else:
            rows = [self._ids(pictures, i, p) for i, p in enumerate(prompts)]
        both = [a + b[:-1] for a, b in zip(rows, references, strict=True)]
        inputs = self.inputs(pictures or Rows(torch.empty(0)), both, [len(b[:-1]) for b in references])
        more = {} if pictures is None else {"mm_encoder_outputs": self.features(pictures)}
        return self.model(**inputs, position_ids=self.positions(inputs).ids, use_cache=False, **more)

    def logits(self, output: ModelOutput) -> Tensor:
        return output.logits

    def in_stream(self, path: str) -> bool:
        return True


def _behind(ids: Tensor, written: Sequence[int] | None) -> Tensor:
    """1 for the last tokens of each row, as many as were written, and 0 for the others."""
    count = torch.tensor(written or [0] * len(ids), device=ids.device)[:, None]
    return (torch.arange(ids.shape[1], device=ids.device) >= ids.shape[1] - count).long()
