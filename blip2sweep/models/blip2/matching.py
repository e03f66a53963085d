"""BLIP-2's image-text retrieval as a worker runs it: contrast (ITC) and matching (ITM).

The model cuts placeholders of the picture off a text where `image_token_index` is set. Here a text is its own tokens, as
without placeholders.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Never

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import Blip2Config, Blip2ForImageTextRetrieval, BlipProcessor

from blip2sweep.models.blip2.forward import Vision
from blip2sweep.models.blip2.model import pixels
from blip2sweep.models.checkpoints import shown
from blip2sweep.models.processor import picture_mistakes, read_image_processor, read_tokenizer, vocabulary_mistakes
from blip2sweep.models.text import Ids, padded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from blip2sweep.models.architecture import ImageStage
    from blip2sweep.models.language import Language
    from blip2sweep.models.ragged import Rows
    from blip2sweep.tasks.generation import Generation

__all__ = ["config_class", "config_mistakes", "image_stages", "language", "model_class", "pixels", "read_processor"]

config_class, model_class = Blip2Config, Blip2ForImageTextRetrieval
TOKENS = 64  # an upper estimate for queries and a caption


def config_mistakes(config: Blip2Config) -> Iterator[str]:
    if not config.qformer_config.use_qformer_text_input:
        told = shown(config.qformer_config.use_qformer_text_input)
        yield f"config.json: qformer_config.use_qformer_text_input is {told}: this Q-Former reads no text"


def read_processor(folder: Path, config: Blip2Config) -> tuple[BlipProcessor | None, list[str]]:
    """(processor, mistakes). Pictures have no placeholders in a text, so nothing is read of processor_config.json."""
    tokenizer, wrong = read_tokenizer(folder)
    images, more = read_image_processor(folder)
    wrong += more
    if tokenizer is None or images is None:
        return None, wrong
    wrong += picture_mistakes(images, config.vision_config.image_size)
    wrong += vocabulary_mistakes(tokenizer, config.qformer_config.vocab_size, ("", None))
    return BlipProcessor(images, tokenizer), wrong


def image_stages(model: Blip2ForImageTextRetrieval, where: torch.device) -> tuple[ImageStage, ...]:
    return (Vision(model, where),)


def language(model: Blip2ForImageTextRetrieval, processor: BlipProcessor, family: str) -> Language:
    return QueryMatcher(model, processor.tokenizer)


class QueryMatcher:
    """A `Matcher` (blip2sweep/models/language.py).

    Texts are padded on the right: their positions are absolute.
    """

    def __init__(self, model: Blip2ForImageTextRetrieval, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model, self.tokenizer, self.tokens = model, tokenizer, TOKENS

    @torch.inference_mode()
    def seen(self, pictures: Rows) -> Tensor:
        """(pictures, queries, width of the comparison), each of length 1."""
        queries = self._queries(len(pictures))
        out = self.model.qformer(query_embeds=queries, encoder_hidden_states=self._features(pictures, len(pictures)))
        return normalize(self._projected(self.model.vision_projection, out.last_hidden_state), dim=-1)

    @torch.inference_mode()
    def said(self, texts: Sequence[Ids]) -> Tensor:
        """(texts, width of the comparison), each of length 1."""
        ids, mask = self._padded(texts)
        out = self.model.qformer(query_embeds=self.model.embeddings(input_ids=ids), query_length=0, attention_mask=mask)
        return normalize(self._projected(self.model.text_projection, out.last_hidden_state[:, 0]), dim=-1)

    @torch.inference_mode()
    def similarity(self, seen: Tensor, said: Tensor) -> Tensor:
        """The largest cosine between a query of the picture and the text."""
        return torch.einsum("iqd,td->itq", seen.float(), said.float()).max(-1).values

    @torch.inference_mode()
    def matched(self, pictures: Rows, texts: Sequence[Ids]) -> Tensor:
        """The logit of "they match", as a mean over the queries."""
        return self.logits(self.read(pictures, texts, texts))[:, 0, 1].float()

    # ---- as the rest asks a language model: texts are references

    def prompt_ids(self, texts: Sequence[str]) -> list[Ids]:
        """Nothing stands before a text."""
        return [[] for _ in texts]

    def reference_ids(self, references: Sequence[str], prompted: bool) -> list[Ids]:
        """Token ids with the special tokens that the tokenizer sets around them. A text is cut where its positions end."""
        if not references:
            return []
        longest = min(self.tokenizer.model_max_length, self.model.config.qformer_config.max_position_embeddings)
        given = {"return_attention_mask": False, "truncation": True, "max_length": longest}
        return self.tokenizer(list(references), **given).input_ids

    def prefill(self, pictures: Rows, prompts: Sequence[Ids]) -> Never:
        raise RuntimeError("a retrieval model writes no text")

    def row_bytes(self, generation: Generation) -> int:
        """The states of a pair in all blocks, which is more than runs at once."""
        config = self.model.config.qformer_config
        return int(config.num_hidden_layers * TOKENS * config.hidden_size * self.model.query_tokens.element_size())

    def as_read(self, prompt: Ids, reference: Ids) -> Ids:
        return reference

    def pictured(self, picture: Rows, text: Ids) -> list[bool]:
        return [False] * len(text)

    def in_stream(self, path: str) -> bool:
        """No token of the Q-Former is a picture's."""
        return False

    @torch.inference_mode()
    def read(self, pictures: Rows | None, texts: Sequence[Ids], references: Sequence[Ids]) -> Tensor:
        """The queries (pairs, queries, width) after they have read each picture together with its text."""
        assert pictures is not None  # planning refuses texts alone
        (ids, mask), queries = self._padded(texts), self._queries(len(texts))
        out = self.model.qformer(
            query_embeds=self.model.embeddings(input_ids=ids, query_embeds=queries), query_length=queries.shape[1],
            attention_mask=torch.cat([mask.new_ones(queries.shape[:2]), mask], 1),
            encoder_hidden_states=self._features(pictures, len(texts)),
        )  # fmt: skip
        return out.last_hidden_state[:, : queries.shape[1]]

    @torch.inference_mode()
    def logits(self, output: object) -> Tensor:
        """(pairs, 1, 2): whether they match."""
        assert isinstance(output, Tensor)
        return self._projected(self.model.itm_head, output).mean(1, keepdim=True)

    def _queries(self, rows: int) -> Tensor:
        return self.model.query_tokens.expand(rows, -1, -1)

    def _features(self, pictures: Rows, rows: int) -> Tensor:
        """Raises RuntimeError for pictures that are not as many image features as texts."""
        vision, features = self.model.config.vision_config, pictures.values
        right = (rows, 1 + (vision.image_size // vision.patch_size) ** 2, vision.hidden_size)
        if tuple(features.shape) != right:
            raise RuntimeError(f"image features {tuple(features.shape)} for {rows} pictures; right: {right}")
        return features.to(self.model.query_tokens.device, self.model.query_tokens.dtype)

    def _padded(self, texts: Sequence[Ids]) -> tuple[Tensor, Tensor]:
        ids, mask = padded(texts, self.tokenizer.pad_token_id, left=False)
        device = self.model.query_tokens.device
        return ids.to(device), mask.to(device)

    def _projected(self, projection: torch.nn.Linear, states: Tensor) -> Tensor:
        projected: Tensor = projection(states.to(projection.weight.device, projection.weight.dtype))
        return projected
