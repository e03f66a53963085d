"""Both tokenizers and the image processor of an InstructBLIP checkpoint, and whether they fit the model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import InstructBlipConfig, InstructBlipProcessor

from blip2sweep.models.blip2.processor import read_with_queries
from blip2sweep.models.processor import read_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OF_QFORMER = "qformer_tokenizer"  # the folder where transformers keeps it


def read_processor(folder: Path, config: InstructBlipConfig) -> tuple[InstructBlipProcessor | None, list[str]]:
    """(processor, mistakes)."""
    of_question, wrong = read_tokenizer(folder / OF_QFORMER)
    wrong = [f"{OF_QFORMER}: {mistake}" for mistake in wrong]
    if of_question is None:
        return None, wrong
    processor, more = read_with_queries(
        folder, config, lambda images, tokenizer, n: InstructBlipProcessor(images, tokenizer, of_question, n)
    )
    return processor, [*wrong, *more, *_tokens(of_question, config.qformer_config.vocab_size)]


def _tokens(tokenizer: PreTrainedTokenizerBase, rows: int) -> Iterator[str]:
    """The mistakes of the Q-Former's tokenizer. rows: of its embedding."""
    known = tokenizer.get_vocab()
    if known and max(known.values()) >= rows:
        yield f"{OF_QFORMER}: has tokens up to {max(known.values())}, qformer_config.vocab_size is {rows}"
    if tokenizer.pad_token_id is None:
        yield f"{OF_QFORMER}: has no pad token"
