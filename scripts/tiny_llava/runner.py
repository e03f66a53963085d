"""Staged inference of the tiny LLaVA over a split: tower, projector, then `generate` on left-padded prompts."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from scripts.tiny.evaluate import Predictions
from scripts.tiny.runner import ANSWER_TOKENS, CAPTION_TOKENS, IMAGE_BATCH, TEXT_BATCH, Runner

from .model import CAPTION_REQUEST, N_IMAGE, PROMPT


class LlavaRunner(Runner):
    """The tiny LLaVA; its cached stages are the tower and the projector."""

    parts = ("vision", "connector", "language")
    model: LlavaForConditionalGeneration
    processor: LlavaProcessor

    def blocks(self, part: str) -> list[nn.Module]:
        core = self.model.model
        if part == "connector":
            return [core.multi_modal_projector]
        return list(core.vision_tower.encoder.layers if part == "vision" else core.language_model.layers)

    @torch.inference_mode()
    def vision(self) -> Tensor:
        """(images, 36, width), of the block that the projector reads"""
        layer, tower = self.model.config.vision_feature_layer, self.model.model.vision_tower
        batches = self.pixels.split(IMAGE_BATCH)
        states = [tower(x, output_hidden_states=True).hidden_states[layer] for x in batches]
        return torch.cat(states)[:, 1:]

    @torch.inference_mode()
    def bridge(self, features: Tensor) -> Tensor:
        """(images, 36, width), in the language model's space"""
        projected: Tensor = self.model.model.multi_modal_projector(features)
        return projected

    @torch.inference_mode()
    def embed(self, projected: Tensor, prompts: list[str]) -> dict[str, Tensor]:
        """Inputs of the language model: left-padded prompts with the image in place."""
        texts = [prompt.replace("<image>", "<image>" * N_IMAGE) for prompt in prompts]
        tokens = self.processor.tokenizer(texts, padding=True, return_tensors="pt")
        embeds = self.model.get_input_embeddings()(tokens.input_ids)
        embeds[tokens.input_ids == self.model.config.image_token_index] = projected.flatten(0, 1)
        return {"inputs_embeds": embeds, "attention_mask": tokens.attention_mask}

    @torch.inference_mode()
    def language(self, projected: Tensor, prompts: list[str], max_new_tokens: int) -> list[str]:
        """Greedy continuations; each batch holds prompts of much the same length."""
        order = sorted(range(len(prompts)), key=lambda k: len(prompts[k]))
        texts: dict[int, str] = {}
        for start in range(0, len(order), TEXT_BATCH):
            chosen = order[start : start + TEXT_BATCH]
            inputs = self.embed(projected[chosen], [prompts[k] for k in chosen])
            ids = self.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
            texts |= zip(chosen, self.processor.batch_decode(ids, skip_special_tokens=True), strict=True)
        return [texts[k].strip() for k in range(len(prompts))]

    def prompts(self) -> list[str]:
        """One a question, in file order."""
        return [PROMPT.format(question) for question in self.split.questions]

    def read(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """The language model's inputs of the questions numbered `rows`."""
        projected, prompts = self.bridge(self.vision()), self.prompts()
        return self.embed(projected[self.split.rows[rows]], [prompts[k] for k in rows])

    @torch.inference_mode()
    def probe(self) -> tuple[Tensor, Tensor]:
        """The tower's features without their mean over channels, which an offset changes, and the logits."""
        features, logits = self.vision(), self.model(**self.read(range(64)[: len(self.split.questions)])).logits[:, -1]
        return features - features.mean(-1, keepdim=True), logits

    def run(self, touched: Collection[str]) -> Predictions:
        vision = self.stage("vision", "vision" in touched, self.vision)
        projected = self.stage("bridge", bool({"vision", "connector"} & set(touched)), lambda: self.bridge(vision))
        captions = self.language(projected, [PROMPT.format(CAPTION_REQUEST)] * len(projected), CAPTION_TOKENS)
        return Predictions(captions, self.language(projected[self.split.rows], self.prompts(), ANSWER_TOKENS))
