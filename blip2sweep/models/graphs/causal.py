"""A decoder of transformers with rotary positions, as a graph: tokens and pictures in their places -> logits at some tokens.

It gets its masks with rows and columns, which transformers takes as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from blip2sweep.models.dropped import hollow
from blip2sweep.models.graphs import Graph, Input
from blip2sweep.models.graphs.masks import added, gaps, left_to_right
from blip2sweep.models.graphs.past import LENGTH, cache_of, presents, states

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

KINDS = "full_attention", "sliding_attention"
TOKENS = {0: "rows", 1: "tokens"}


class Causal(nn.Module):
    """decoder: its blocks and embeddings. head: of its words. first: the number of the first token.

    together: which tokens read each other both ways: "image", those of a picture; "prefix", all that are read with a
    picture; None, none.
    """

    def __init__(
        self, decoder: PreTrainedModel, head: nn.Module, config: PreTrainedConfig, first: int = 0,
        together: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.decoder, self.head, self.config = decoder, head, config
        self.first, self.together = first, together
        self.by_kind = KINDS[1] in (getattr(config, "layer_types", None) or ())
        windowed = self.by_kind or config.model_type == "mistral"
        self.window = getattr(config, "sliding_window", None) if windowed else None

    def forward(
        self, input_ids: Tensor, pictures: Tensor, is_picture: Tensor, attention_mask: Tensor, at: Tensor,
        position_ids: Tensor, *past: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        cache = cache_of(past)
        embeds = torch.where(is_picture[..., None], pictures, self.decoder.get_input_embeddings()(input_ids))
        hidden = self.decoder(
            inputs_embeds=embeds, attention_mask=self.masks(attention_mask, is_picture),
            position_ids=position_ids + self.first, past_key_values=cache, use_cache=True,
        ).last_hidden_state  # fmt: skip
        wanted = hidden.gather(1, at[..., None].expand(-1, -1, hidden.shape[-1]))
        return (self.head(wanted), *presents(cache))

    def masks(self, mask: Tensor, is_picture: Tensor) -> Tensor | dict[str, Tensor]:
        """What is added to scores (rows, 1, new, all tokens), by the kind of a block where there are two."""
        new = is_picture.shape[1]
        read, both = left_to_right(mask, new), self._both_ways(mask, is_picture)
        near = read if self.window is None else read & (gaps(mask, new) < self.window)[None, None]
        kinds = [added(x if both is None else x | both) for x in (read, near)]
        return dict(zip(KINDS, kinds, strict=True)) if self.by_kind else kinds[1]

    def _both_ways(self, mask: Tensor, is_picture: Tensor) -> Tensor | None:
        """(rows, 1, new, all tokens) bool: tokens that read each other. Tokens of the past are of no such group."""
        if self.together is None:
            return None
        groups = _pictures(is_picture) if self.together == "image" else _prefix(is_picture)
        same = (groups[:, :, None] == groups[:, None]) & (groups >= 0)[:, :, None]
        past = torch.zeros(is_picture.shape[0], is_picture.shape[1], mask.shape[1] - is_picture.shape[1])
        return torch.cat([past.bool(), same], -1)[:, None] & (mask[:, None, None] > 0)


def _pictures(is_picture: Tensor) -> Tensor:
    """(rows, tokens) int64: the number of the run of a picture's tokens; -1 for others."""
    before = torch.cat([torch.zeros_like(is_picture[:, :1]), is_picture[:, :-1]], 1)
    number = (is_picture & ~before).long().cumsum(1)
    return torch.where(is_picture, number, -1)


def _prefix(is_picture: Tensor) -> Tensor:
    """(rows, tokens) int64: 0 for all tokens that are read with a picture: those of the prompt. -1 for later ones."""
    return is_picture.any(1, keepdim=True).long().expand(is_picture.shape) - 1


def causal_graph(name: str, module: Causal, model: nn.Module) -> Graph:
    """model: the whole model, in which the decoder and its head have their paths. Blocks that are dropped have no states."""
    ids, width = torch.zeros(2, 4, dtype=torch.long), module.decoder.get_input_embeddings().weight.shape[1]
    inputs = (
        Input("input_ids", ids, TOKENS), Input("pictures", torch.zeros(2, 4, width), TOKENS),
        Input("is_picture", ids.bool(), TOKENS),
        Input("attention_mask", torch.ones(2, 4 + LENGTH, dtype=torch.long), {0: "rows", 1: "all_tokens"}),
        Input("at", ids[:, :2], {0: "rows", 1: "wanted"}), Input("position_ids", ids, TOKENS),
    )  # fmt: skip
    config, blocks = module.config, cast("nn.ModuleList", module.decoder.layers)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    own = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    past = states(sum(not hollow(block) for block in blocks), heads, own)
    return Graph(name, module, inputs, ("logits",), paths_in(model, module), past)


def paths_in(model: nn.Module, module: nn.Module) -> dict[str, str]:
    """{name of a child of a graph's module: its path in the model}."""
    children = {id(child): name for name, child in module.named_children()}
    return {children[id(found)]: path for path, found in model.named_modules() if id(found) in children}
