"""A cache with room holds, and a text written with it says, what they would without."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from transformers import DynamicCache, OPTConfig, OPTForCausalLM
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from blip2sweep.models.bert import Seen
from blip2sweep.models.decoder import select, unchanged
from blip2sweep.models.room import ROOM, RoomyLayer, make_room
from blip2sweep.tasks import Generation
from tests.models.decoders import OPT, made, random_weights
from tests.models.written import Written, ends_of, generated

HEAD = 4  # its width
MODELS = ("opt", "llama", "mistral", "qwen2")  # of text alone, whose rows write different texts


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", MODELS)
def test_texts_are_those_of_generate_and_logits_those_without_room(name: str, attention: str) -> None:
    model = made(name)
    model.set_attn_implementation(attention)
    ends = ends_of(model)
    for least in (None, 4):
        generation = Generation(None, 1, 14, min_new_tokens=least)
        found = Written(model, generation, ends, room=True)
        assert {type(layer) for layer in found.cache.layers} == {RoomyLayer}
        assert found.same(Written(model, generation, ends))
        assert found.texts == generated(model, generation, ends)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["opt", "llama"])
def test_room_rounds_nothing_otherwise_in_half_precision(name: str, dtype: torch.dtype) -> None:
    model = made(name).to(dtype)
    found, plain = (Written(model, Generation(None, 1, 14), ends_of(model), room) for room in (True, False))
    assert found.same(plain)


@pytest.mark.parametrize("width", [8, 9])
def test_logits_are_those_without_room_whatever_a_head_is_wide(width: int) -> None:
    """Heads of 9 float32 begin anywhere in a vector of a CPU, which then sums in another order."""
    sizes: Any = {**OPT, "hidden_size": 4 * width, "word_embed_proj_dim": 4 * width}
    torch.manual_seed(0)
    model = random_weights(OPTForCausalLM(OPTConfig(**sizes)))
    found, plain = (Written(model, Generation(None, 1, 14), ends_of(model), room) for room in (True, False))
    assert found.same(plain)
    assert {type(layer) for layer in found.cache.layers} == {DynamicLayer if width == 9 else RoomyLayer}


def caches() -> tuple[DynamicCache, DynamicCache]:
    """With room, and without, of the same keys and values."""
    found = DynamicCache(), DynamicCache()
    for cache in found:
        torch.manual_seed(0)
        cache.update(torch.randn(6, 2, 5, HEAD), torch.randn(6, 2, 5, HEAD), 0)
    make_room(found[0])
    return found


def add(cache: DynamicCache, tokens: int, seed: int) -> None:
    states = torch.Generator().manual_seed(seed)
    shape = len(cache.layers[0].keys), 2, tokens, HEAD
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


def test_a_cache_of_another_kind_stays() -> None:
    """As BLIP's, whose layers cannot be set."""
    states = torch.ones(2, 3, 4)
    cache = Seen(states, states[..., 0])
    for half in (cache.self_attention_cache, cache.cross_attention_cache):
        half.update(torch.randn(2, 2, 5, HEAD), torch.randn(2, 2, 5, HEAD), 0)
    make_room(cache)
    assert [type(layer) for layer in cache.layers] == [DynamicLayer] * 2
