"""T5 as the language model behind pictures. Its encoder reads [pictures][prompt EOS][padding], its decoder writes.

The encoder runs once (`prefill`). From there references are scored, and the text is written through `generate` of
transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from blip2sweep.models.learning import inference
from blip2sweep.models.pieces import ALL, in_pieces
from blip2sweep.models.text import Ids, LanguageModel, Likelihood, Text, beams, padded

if TYPE_CHECKING:
    from transformers.modeling_outputs import ModelOutput

    from blip2sweep.models.ragged import Rows
    from blip2sweep.tasks.generation import Generation

READ_ENCODER = (".EncDecAttention.k", ".EncDecAttention.v")  # by module path, since stacks and kinds have any names


class T5:
    """A `Language` (blip2sweep/models/language.py)."""

    def __init__(self, base: LanguageModel) -> None:
        self.base, self.model, self.tokens = base, base.model, base.inputs.tokens

    def prompt_ids(self, texts: Sequence[str]) -> list[Ids]:
        """Token ids with EOS last, as the tokenizer sets it."""
        return self.base.prompts(texts)

    def reference_ids(self, references: Sequence[str], prompted: bool) -> list[Ids]:
        return self.base.with_ends(references)

    @inference
    def prefill(self, pictures: Rows, prompts: Sequence[Ids]) -> Prefilled:
        embeds, mask = self.base.inputs.embed(pictures, prompts, left=False)
        encoded = self.model.get_encoder()(inputs_embeds=embeds, attention_mask=mask)
        return Prefilled(self, mask, encoded)

    def row_bytes(self, generation: Generation) -> int:
        config = self.model.config
        return self.base.row_bytes(config.num_hidden_layers + config.num_decoder_layers, generation)

    # ---- one pass over rows of one length

    def as_read(self, prompt: Ids, reference: Ids) -> Ids:
        """The prompt: the encoder does not read the reference."""
        return prompt

    def pictured(self, picture: Rows, text: Ids) -> list[bool]:
        return self.base.inputs.pictured(text, picture.tokens(0))

    @inference
    def read(self, pictures: Rows | None, texts: Sequence[Ids], references: Sequence[Ids]) -> ModelOutput:
        embeds, mask = self.base.inputs.embed(pictures, texts, left=False)
        labels = torch.tensor(references, device=embeds.device)
        shifted = self.model.prepare_decoder_input_ids_from_labels(labels)
        return self.model(inputs_embeds=embeds, attention_mask=mask, decoder_input_ids=shifted, use_cache=False)

    def logits(self, output: ModelOutput) -> Tensor:
        return output.logits

    def in_stream(self, path: str) -> bool:
        """Whether inputs are tokens of the encoder's stream. The decoder reads it in its cross-attention only."""
        own, decoder = (path.startswith(f"{self.base.path}.{child}") for child in ("", "decoder."))
        return own and (not decoder or path.endswith(READ_ENCODER))


@dataclass(eq=False)
class Prefilled:
    """Pictures and prompts that the encoder has read."""

    language: T5
    mask: Tensor
    encoded: ModelOutput

    @inference
    def likelihood(self, references: Sequence[Ids]) -> list[Likelihood]:
        return in_pieces(references, self.language.base.pad, self.logits)

    @inference
    def logits(self, references: Sequence[Ids], rows: slice = ALL) -> Tensor:
        """The decoder reads the references shifted right. rows: those that they belong to."""
        model, (ids, own) = self.language.model, padded(references, self.language.base.pad, left=False)
        shifted = model.prepare_decoder_input_ids_from_labels(ids.to(self.mask.device))
        encoded = BaseModelOutput(self.encoded.last_hidden_state[rows])
        out = model(encoder_outputs=encoded, attention_mask=self.mask[rows], decoder_input_ids=shifted).logits
        return out[own.bool().to(out.device)]

    @inference
    def generate(self, generation: Generation) -> list[Text]:
        # A cache of our own: transformers makes one of as many entries as the encoder has blocks, which may be too few.
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        out = self.language.model.generate(
            attention_mask=self.mask, do_sample=False, pad_token_id=self.language.base.pad,
            encoder_outputs=self.encoded, past_key_values=cache, **beams(generation),
        )  # fmt: skip
        return self.language.base.texts(out[:, 1:].tolist())  # the first is the start token
