"""What a tiny model reads and writes: the text around a request, and a tokenizer trained on the words of the scenes."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from blip2sweep.tasks import scenes

EOS = 2  # ends every target, in OPT's ids and in Llama's


@dataclass(frozen=True)
class Wording:
    """How a model is asked; `question` has a {} for the question, an empty `caption` asks with the image alone."""

    caption: str
    question: str
    first: int  # position of a request's first token: image tokens and what else stands in front of all requests
    special: bool  # whether the tokenizer puts its first token in front of a request

    def target(self, prompt: str, text: str) -> str:
        """`text` as it goes on after `prompt`."""
        return f" {text}" if prompt else text


def plain_caption(caption: str) -> str:
    """A reference caption as the model is to write it: BLIP-2 and LLaVA-1.5's tasks know lower case and no full stop."""
    return caption.lower().rstrip(".")


def corpus(wording: Wording, n_scenes: int = 3000) -> list[str]:
    """Captions and questions of random scenes, in the model's own words."""
    rng, texts = random.Random(1), []
    for _ in range(n_scenes):
        things = scenes.scene(rng)
        captions = [plain_caption(caption) for caption in scenes.captions(things, rng)[:2]]
        texts += [wording.caption + wording.target(wording.caption, caption) for caption in captions]
        for answer_type in scenes.ANSWER_TYPES:
            question = scenes.question(things, rng, answer_type)
            texts.append(f"{wording.question.format(question.text)} {question.answer}")
    return texts


def train_bpe(texts: list[str], special_tokens: list[str]) -> Tokenizer:
    """Byte-level BPE of at most 512 tokens; it stops when nothing merges (about 450)."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=512, special_tokens=special_tokens, initial_alphabet=alphabet, show_progress=False
        ),
    )
    return bpe
