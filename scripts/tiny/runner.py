"""Staged inference of the tiny BLIP-2 over a split, and what every tiny model's runner has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import Blip2ForConditionalGeneration, Blip2Processor, PreTrainedModel, ProcessorMixin

from .evaluate import Predictions, Split
from .model import PROMPT

IMAGE_BATCH, TEXT_BATCH = 125, 128
CAPTION_TOKENS, ANSWER_TOKENS = 32, 6


class Runner(ABC):
    """Inference over a split; stages before the first touched part come from the untouched model's cache."""

    parts: tuple[str, ...]  # in the order of the forward

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, split: Split) -> None:
        self.model, self.processor, self.split = model.eval(), processor, split
        images = [Image.open(file).convert("RGB") for file in split.files]
        pixels = processor.image_processor(images=images, return_tensors="pt")["pixel_values"]
        self.pixels: Tensor = pixels.float()
        self.cache: dict[str, Tensor] = {}

    @abstractmethod
    def blocks(self, part: str) -> list[nn.Module]:
        """The blocks of a part, in order."""

    @abstractmethod
    def run(self, touched: Collection[str]) -> Predictions:
        """Captions and answers of the model as it stands, `touched` naming the parts that differ from the cache."""

    @abstractmethod
    def probe(self) -> tuple[Tensor, Tensor]:
        """Image features that rescaling leaves alone, and first-token logits of 64 questions: to compare models by."""

    def stage(self, name: str, fresh: bool, compute: Callable[[], Tensor]) -> Tensor:
        """What `compute` returns, kept for the model whose parts are untouched."""
        if fresh:
            return compute()
        if name not in self.cache:
            self.cache[name] = compute()
        return self.cache[name]


class Blip2Runner(Runner):
    """The tiny BLIP-2; its cached stages are the image encoder and the Q-Former."""

    parts = ("vit", "qformer", "llm")
    model: Blip2ForConditionalGeneration
    processor: Blip2Processor

    def blocks(self, part: str) -> list[nn.Module]:
        model = self.model
        if part == "vit":
            return list(model.vision_model.encoder.layers)
        return list(model.qformer.encoder.layer if part == "qformer" else model.language_model.model.decoder.layers)

    @torch.inference_mode()
    def vision(self) -> Tensor:
        """(images, 37, width)"""
        return torch.cat([self.model.vision_model(x).last_hidden_state for x in self.pixels.split(IMAGE_BATCH)])

    @torch.inference_mode()
    def bridge(self, features: Tensor) -> Tensor:
        """(images, 12, width), in the language model's space."""
        start = self.model.query_tokens
        outputs = [
            self.model.qformer(query_embeds=start.expand(len(x), -1, -1), encoder_hidden_states=x).last_hidden_state
            for x in features.split(IMAGE_BATCH)
        ]
        return self.model.language_projection(torch.cat(outputs))

    def embed(self, queries: Tensor, prompts: list[str]) -> dict[str, Tensor]:
        """Inputs of the language model: query features, then the left-padded prompt."""
        tokens = self.processor.tokenizer(prompts, padding=True, return_tensors="pt")
        embeds = torch.cat([queries, self.model.get_input_embeddings()(tokens.input_ids)], 1)
        ones = torch.ones(queries.shape[:2], dtype=torch.long)
        return {"inputs_embeds": embeds, "attention_mask": torch.cat([ones, tokens.attention_mask], 1)}

    @torch.inference_mode()
    def language(self, queries: Tensor, prompts: list[str], max_new_tokens: int) -> list[str]:
        """Greedy continuations; empty prompts make captions."""
        tokenizer, texts = self.processor.tokenizer, []
        for start in range(0, len(prompts), TEXT_BATCH):
            batch = slice(start, start + TEXT_BATCH)
            inputs = self.embed(queries[batch], prompts[batch])
            ids = self.model.language_model.generate(
                **inputs, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id
            )
            texts += [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]
        return texts

    def prompts(self) -> list[str]:
        return [PROMPT.format(question) for question in self.split.questions]

    @torch.inference_mode()
    def probe(self) -> tuple[Tensor, Tensor]:
        queries = self.bridge(self.vision())
        inputs = self.embed(queries[self.split.rows[:64]], self.prompts()[:64])
        return queries, self.model.language_model(**inputs).logits[:, -1]

    def run(self, touched: Collection[str]) -> Predictions:
        vision = self.stage("vision", "vit" in touched, self.vision)
        queries = self.stage("bridge", bool({"vit", "qformer"} & set(touched)), lambda: self.bridge(vision))
        captions = self.language(queries, [""] * len(queries), CAPTION_TOKENS)
        order = np.argsort([len(question) for question in self.split.questions], kind="stable")
        prompts = self.prompts()
        texts = self.language(queries[self.split.rows[order]], [prompts[k] for k in order], ANSWER_TOKENS)
        answers = dict(zip(order.tolist(), texts, strict=True))
        return Predictions(captions, [answers[k] for k in range(len(prompts))])
