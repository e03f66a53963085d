"""InstructBLIP as a worker runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration, InstructBlipProcessor

from blip2sweep.errors import UserError
from blip2sweep.models.blip2.forward import QueriesFirst, Vision
from blip2sweep.models.blip2.model import config_mistakes, pixels
from blip2sweep.models.instructblip import no_graphs
from blip2sweep.models.instructblip.graphs import graphs as graphs_of
from blip2sweep.models.instructblip.processor import read_processor
from blip2sweep.models.llama import Llama
from blip2sweep.models.t5 import T5
from blip2sweep.models.text import Ids, LanguageModel, Prompt, padded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from blip2sweep.models.architecture import ImageStage
    from blip2sweep.models.graphs import Graphs
    from blip2sweep.models.language import Language
    from blip2sweep.models.ragged import Rows

__all__ = [
    "config_class", "config_mistakes", "graphs", "image_stages", "language", "model_class", "pixels", "read_processor",
]  # fmt: skip

config_class, model_class = InstructBlipConfig, InstructBlipForConditionalGeneration
LANGUAGES: dict[str, type[Llama] | type[T5]] = {"llama": Llama, "t5": T5}


def image_stages(model: InstructBlipForConditionalGeneration, where: torch.device) -> tuple[ImageStage, ...]:
    return (Vision(model, where),)


def language(model: InstructBlipForConditionalGeneration, processor: InstructBlipProcessor, family: str) -> Language:
    inputs = InstructedQueries(model, processor)
    return LANGUAGES[family](Instructed(model.language_model, processor.tokenizer, "language_model", inputs))


def graphs(model: InstructBlipForConditionalGeneration, processor: InstructBlipProcessor, family: str) -> Graphs:
    """See `HasGraphs`."""
    if why := no_graphs({"family": family}):
        raise UserError(why)
    inputs = InstructedQueries(model, processor)
    own = Llama(Instructed(model.language_model, processor.tokenizer, "language_model", inputs))
    return graphs_of(model, own, inputs)


class Instruction(Prompt):
    """A prompt, and the token ids by which the Q-Former reads the same text."""

    def __init__(self, ids: Sequence[int], text: str, question: Ids) -> None:
        super().__init__(ids, text)
        self.question = question

    @property
    def lengths(self) -> tuple[int, ...]:
        return (len(self), len(self.question))


class Instructed(LanguageModel):
    """The language model, whose prompts the Q-Former reads too."""

    def prompts(self, texts: Sequence[str]) -> list[Ids]:
        assert isinstance(self.inputs, InstructedQueries)
        pairs = zip(super().prompts(texts), texts, self.inputs.questions(texts), strict=True)
        return [Instruction(ids, text, question) for ids, text, question in pairs]


class InstructedQueries(QueriesFirst):
    """The language model's input: image features that the queries read with the question, and the prompt."""

    alike = False

    def __init__(self, model: InstructBlipForConditionalGeneration, processor: InstructBlipProcessor) -> None:
        super().__init__(model, processor.tokenizer.pad_token_id)
        vision = model.config.vision_config
        self.features = 1 + (vision.image_size // vision.patch_size) ** 2, vision.hidden_size
        self.tokens = self.features[0] + 32
        self.tokenizer: PreTrainedTokenizerBase = processor.qformer_tokenizer

    def questions(self, texts: Sequence[str]) -> list[Ids]:
        """The token ids of texts for the Q-Former, with the special tokens that its tokenizer sets around them."""
        return self.tokenizer(list(texts), return_attention_mask=False).input_ids if texts else []

    def asked(self, prompts: Sequence[Ids]) -> list[Ids]:
        """The token ids by which the Q-Former reads prompts."""
        return [p.question for p in prompts if isinstance(p, Instruction)]

    def queries(self, pictures: Rows, prompts: Sequence[Ids]) -> Tensor:
        """Query features (batch, num_query_tokens, width of the Q-Former) of pictures and questions.

        Raises RuntimeError for pictures that are not as many image features as prompts.
        """
        self._check(pictures.values, len(prompts))
        tokens = self.model.query_tokens.expand(len(prompts), -1, -1)
        ids, own = padded(self.asked(prompts), self.tokenizer.pad_token_id, left=False)
        mask = torch.cat([torch.ones(tokens.shape[:2], dtype=torch.long), own], 1).to(tokens.device)
        out = self.model.qformer(
            input_ids=ids.to(tokens.device), attention_mask=mask, query_embeds=tokens,
            encoder_hidden_states=pictures.values.to(tokens.device, tokens.dtype),
        )  # fmt: skip
        return out.last_hidden_state[:, : tokens.shape[1]]

    def pictured(self, text: Ids, tokens: int) -> list[bool]:
        """The language model reads queries in place of a picture, whatever the number of its features."""
        return super().pictured(text, self.model.config.num_query_tokens)

    def _check(self, features: Tensor, rows: int) -> None:
        right = (rows, *self.features)
        if tuple(features.shape) != right:
            raise RuntimeError(f"image features {tuple(features.shape)} for {rows} prompts; right: {right}")
