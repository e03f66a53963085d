"""What the language model reads and writes, as tokens: prompts, references, inputs.

OPT reads [query features][padding][BOS prompt]: padding on the right would change what it writes. T5's encoder reads
[query features][prompt EOS][padding].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from blip2sweep.models.blip2.bridge import project
from blip2sweep.models.load import Loaded

Ids = list[int]


class Text(NamedTuple):
    """What was generated, and how many tokens of it came before the end."""

    text: str
    tokens: int


class Likelihood(NamedTuple):
    """Sum of -log p (nats) over a reference's tokens and its EOS, and their number."""

    nll_sum: float
    nll_tokens: int


def prompt_ids(loaded: Loaded, texts: Sequence[str]) -> list[Ids]:
    """Token ids with the tokenizer's own special tokens: BOS before OPT's, EOS after T5's."""
    ids = _tokenized(loaded, texts, add_special_tokens=True)
    bos = loaded.processor.tokenizer.bos_token_id
    if loaded.family == "opt" and any(row[:1] != [bos] for row in ids):
        raise RuntimeError(f"the tokenizer sets no BOS token ({bos}) before a prompt, as OPT was trained with")
    return ids


def reference_ids(loaded: Loaded, references: Sequence[str], prompted: bool) -> list[Ids]:
    """Token ids of references, each with EOS; OPT goes on after a prompt with a space."""
    space = " " if prompted and loaded.family == "opt" else ""
    rows = _tokenized(loaded, [space + text for text in references], add_special_tokens=False)
    return [[*row, ends(loaded)[0]] for row in rows]


def _tokenized(loaded: Loaded, texts: Sequence[str], add_special_tokens: bool) -> list[Ids]:
    if not texts:  # which tokenizers refuse
        return []
    encoded = loaded.processor.tokenizer(
        list(texts), add_special_tokens=add_special_tokens, return_attention_mask=False
    )
    return encoded.input_ids


def ends(loaded: Loaded) -> list[int]:
    """The tokens generation stops at, the first being the one a reference ends with.

    BLIP-2's OPT models stop at a newline, which only the model's config says.
    """
    end = loaded.model.language_model.generation_config.eos_token_id
    return list(end) if isinstance(end, list) else [int(end)]


@torch.inference_mode()
def inputs(loaded: Loaded, query_features: Tensor, prompts: Sequence[Ids]) -> tuple[Tensor, Tensor]:
    """Embeddings (batch, queries + longest prompt, width) and mask (batch, same) for the language model's input.

    Padding stands between picture and prompt (left) where the family needs it.
    """
    n = loaded.model.config.num_query_tokens
    if query_features.shape[:2] != (len(prompts), n):
        shape = tuple(query_features.shape)
        raise RuntimeError(f"query features {shape} for {len(prompts)} prompts and {n} query tokens")
    embedding = loaded.model.language_model.get_input_embeddings()
    device = embedding.weight.device
    ids, mask = padded(prompts, loaded.processor.tokenizer.pad_token_id, left=loaded.family == "opt")
    features = project(loaded, query_features).to(device, embedding.weight.dtype)
    seen = torch.ones(features.shape[:2], dtype=torch.long)
    return torch.cat([features, embedding(ids.to(device))], 1), torch.cat([seen, mask], 1).to(device)


def padded(rows: Sequence[Ids], pad: int, left: bool) -> tuple[Tensor, Tensor]:
    """ids and mask (rows, longest), int64."""
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), pad)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(longest - len(row), longest) if left else slice(0, len(row))
        ids[i, place], mask[i, place] = torch.tensor(row), 1
    return ids, mask
