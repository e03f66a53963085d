"""A cache with room holds, and a text written with it says, what they would without."""

from __future__ import annotations

import random
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from blip2sweep.models.decoder import greedy, select, unchanged
from blip2sweep.models.room import ROOM, RoomyLayer, make_room
from blip2sweep.tasks import Generation
from tests.models.decoders import made

MODELS = ("opt", "llama", "mistral", "qwen2")  # of text alone, whose rows write different texts
ROWS, PROMPT, PAD = 16, 5, 1


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


class Prompts(NamedTuple):
    ids: Tensor
    mask: Tensor


def prompts() -> Prompts:
    """Some are padded on the left."""
    ids = torch.randint(3, 40, (ROWS, PROMPT), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    for row in range(0, ROWS, 3):
        mask[row, : 1 + row % 4] = 0
    return Prompts(torch.where(mask.bool(), ids, PAD), mask)


class Written:
    """Texts of a decoder. logits: of each step. layers: the kinds of the cache's layers."""

    @torch.inference_mode()
    def __init__(self, model: Any, generation: Generation, ends: list[int], room: bool) -> None:
        self.model, self.cache, self.logits = model, DynamicCache(), list[Tensor]()
        asked = prompts()
        first = self._read(asked.ids, asked.mask)
        if room:
            make_room(self.cache)
        self.texts = greedy(first, asked.mask, partial(select, self.cache), self._step, generation, ends, PAD)
        self.layers = {type(layer) for layer in self.cache.layers}

    def _read(self, ids: Tensor, mask: Tensor) -> Tensor:
        places = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        out = self.model(input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=self.cache)
        self.logits.append(out.logits[:, -1])
        return self.logits[-1]

    def _step(self, tokens: Tensor, mask: Tensor, rows: Tensor) -> Tensor:
        return self._read(tokens, mask).clone()  # greedy forbids ends in what it gets


def ends_of(model: Any) -> list[int]:
    """Tokens that end some rows at once, some later, and some never."""
    free = Written(model, Generation(None, 1, 14), [0], room=False).texts
    return [free[0][0], free[1][3], free[2][9]]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", MODELS)
def test_texts_are_those_of_generate_and_logits_those_without_room(name: str, attention: str) -> None:
    model = made(name)
    model.set_attn_implementation(attention)
    ends = ends_of(model)
    for least in (None, 4):
        generation = Generation(None, 1, 14, min_new_tokens=least)
        found, plain = (Written(model, generation, ends, room) for room in (True, False))
        assert (found.layers, plain.layers) == ({RoomyLayer}, {DynamicLayer})
        assert found.texts == plain.texts
        assert all(torch.equal(a, b) for a, b in zip(found.logits, plain.logits, strict=True))
        assert len({len(step) for step in found.logits}) > 1  # rows were dropped on the way
        assert found.texts == generated(model, generation, ends)


def generated(model: Any, generation: Generation, ends: list[int]) -> list[list[int]]:
    """By `generate` of transformers, padded to the same length."""
    asked = prompts()
    out = model.generate(
        asked.ids, attention_mask=asked.mask, do_sample=False, eos_token_id=ends, pad_token_id=PAD,
        max_new_tokens=generation.max_new_tokens, min_new_tokens=generation.min_new_tokens,
    )[:, PROMPT:].tolist()  # fmt: skip
    return [row + [PAD] * (generation.max_new_tokens - len(row)) for row in out]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["opt", "llama"])
def test_room_rounds_nothing_otherwise_in_half_precision(name: str, dtype: torch.dtype) -> None:
    model = made(name).to(dtype)
    found, plain = (Written(model, Generation(None, 1, 14), ends_of(model), room) for room in (True, False))
    assert all(torch.equal(a, b) for a, b in zip(found.logits, plain.logits, strict=True))


def caches() -> tuple[DynamicCache, DynamicCache]:
    """With room, and without, of the same keys and values."""
    found = DynamicCache(), DynamicCache()
    for cache in found:
        torch.manual_seed(0)
        cache.update(torch.randn(6, 2, 5, 3), torch.randn(6, 2, 5, 3), 0)
    make_room(found[0])
    return found


def add(cache: DynamicCache, tokens: int, seed: int) -> None:
    states = torch.Generator().manual_seed(seed)
    shape = len(cache.layers[0].keys), 2, tokens, 3
    got = cache.update(torch.randn(shape, generator=states), torch.randn(shape, generator=states), 0)
    assert all(a is b for a, b in zip(got, (cache.layers[0].keys, cache.layers[0].values), strict=True))


def change(cache: DynamicCache, how: str, seed: int) -> None:
    layer = cache.layers[0]
    if how == "forgotten":
        with unchanged(cache, slice(0, 2)):
            add(cache, 1, seed)
    elif how == "shorter":
        layer.keys, layer.values = layer.keys[:, :, :-1], layer.values[:, :, :-1]
    elif how == "fewer":
        select(cache, torch.arange(len(layer.keys))[:-1].flip(0))
    else:
        add(cache, 2 if how == "several" else 1, seed)


@pytest.mark.parametrize("seed", range(20))
def test_keys_and_values_are_those_without_room_whatever_happens_to_them(seed: int) -> None:
    chance, (roomy, plain) = random.Random(seed), caches()
    for how in chance.choices(["one", "several", "forgotten", "shorter", "fewer"], [12, 1, 2, 2, 1], k=30):
        if how == "fewer" and len(plain.layers[0].keys) == 1:
            continue
        number = chance.randrange(1000)
        for cache in (roomy, plain):
            change(cache, how, number)
        a, b = roomy.layers[0], plain.layers[0]
        assert torch.equal(a.keys, b.keys), how
        assert torch.equal(a.values, b.values), how


def test_keys_and_values_stay_where_they_are_while_there_is_room() -> None:
    roomy, _ = caches()
    places = list[int]()
    for seed in range(1 + 2 * ROOM):
        add(roomy, 1, seed)
        places.append(roomy.layers[0].keys.data_ptr())
    moves = [i for i in range(1, len(places)) if places[i] != places[i - 1]]
    assert moves == [1, 1 + ROOM]


def test_layers_of_other_kinds_stay() -> None:
    cache = DynamicCache()
    cache.layers = [DynamicSlidingWindowLayer(sliding_window=4), DynamicLayer()]  # the second one has read nothing
    make_room(cache)
    assert [type(layer) for layer in cache.layers] == [DynamicSlidingWindowLayer, DynamicLayer]
