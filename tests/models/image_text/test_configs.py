"""The YAML of every image-text model: its full-size tree on the meta device, and what planning says of it."""

from __future__ import annotations

import pytest

from blip2sweep.errors import MissingRole
from blip2sweep.models.anatomy import anatomy
from blip2sweep.models.architecture import stage_of
from blip2sweep.models.tree import verify
from tests.checkpoints import build_meta, conf
from tests.composing import plan
from tests.image_text import SMALL

# {model: (all parameters, {part: (blocks, linears, million weights)})}. Counts by hand of the same sizes as published:
# what is not addressable (LLaVA's last vision block) is left out.
CLIP, SO400M = (23, 138, 289.41), (27, 162, 411.07)
COUNTS = {
    "llava-1.5-7b": (7063.43, CLIP, (1, 2, 20.97), (32, 224, 6476.01)),
    "llava-1.5-13b": (13351.49, CLIP, (1, 2, 31.46), (40, 280, 12687.77)),
    "llava-v1.6-mistral-7b": (7566.75, CLIP, (1, 2, 20.97), (32, 224, 6979.32)),
    "llava-onevision-0.5b": (893.68, (26, 156, 395.85), (1, 2, 1.84), (24, 168, 357.83)),
    "smolvlm-256m": (256.48, (12, 72, 84.93), (1, 1, 7.08), (30, 210, 106.17)),
    "smolvlm-500m": (507.48, (12, 72, 84.93), (1, 1, 11.80), (32, 224, 314.57)),
    "idefics3-8b": (8462.09, SO400M, (1, 1, 18.87), (32, 224, 6979.32)),
    "paligemma-3b-224": (2923.47, SO400M, (1, 1, 2.36), (18, 126, 1981.81)),
    "internvl3-1b": (938.19, (24, 144, 301.99), (1, 2, 4.47), (24, 168, 357.83)),
    "gemma-3-4b": (4300.08, SO400M, None, (34, 238, 3208.64)),
    "qwen2.5-vl-3b": (3754.62, (32, 160, 629.96), (1, 2, 36.70), (36, 252, 2774.53)),
    "qwen2.5-vl-7b": (8292.17, (32, 160, 629.96), (1, 2, 44.56), (28, 196, 6525.29)),
    "qwen3-vl-2b": (2127.53, (24, 96, 301.99), (4, 8, 100.66), (28, 196, 1409.29)),
}


@pytest.mark.parametrize("name", SMALL)
def test_counts_are_those_of_the_full_size_model(name: str) -> None:
    section, (total, *parts) = conf(f"model/{name}"), COUNTS[name]
    sizes, text = section["config"], section["config"]["text_config"]
    if text.get("tie_word_embeddings") is False:  # as transformers does where both tensors are stored
        sizes = {**sizes, "tie_word_embeddings": False}
    model, own = build_meta({**section, "config": sizes}), anatomy(section)
    model.tie_weights()
    verify(model, own)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == total
    for role, expected in zip(("vision", "connector", "language"), parts, strict=True):
        found = own.role(role)
        assert len(found) == (expected is not None)
        for part in found:
            weights = sum(x.weights for x in part.linears) / 1e6
            assert (part.n_blocks, len(part.linears), round(weights, 2)) == expected
            assert all(stage_of(x.path, own.stages).name == role == part.stage for x in part.linears)
    assert stage_of("lm_head.weight", own.stages).name == "language"
    for name in (n for n, _ in model.named_parameters() if "projector" in n or "newline" in n):
        assert stage_of(name, own.stages).name == "connector"


@pytest.mark.parametrize("name", SMALL)
def test_tied_names_are_those_of_the_model(name: str) -> None:
    section = conf(f"model/{name}")
    model = build_meta(section)
    ties = {} if section["config"]["text_config"].get("tie_word_embeddings") is False else model.all_tied_weights_keys
    groups = [set(group) for group in section["tied"]]
    assert all(any({a, b} <= group for group in groups) for a, b in ties.items())
    assert bool(ties) == bool(groups)


def test_the_dead_block_of_llava_is_not_addressable() -> None:
    for name in ("llava-1.5-7b", "llava-1.5-13b", "llava-v1.6-mistral-7b"):
        (vision,) = anatomy(conf(f"model/{name}")).role("vision")
        assert {x.path.split(".")[4] for x in vision.unread} == {"23"}
        assert vision.n_blocks == 23


def test_the_connector_of_gemma_says_why_it_is_none() -> None:
    with pytest.raises(MissingRole, match=r"no part of the role connector \(its projection is a bare parameter"):
        anatomy(conf("model/gemma-3-4b")).resolve_names("connector", "part=connector")


@pytest.mark.parametrize("name", SMALL)
def test_its_prompts_stand_with_the_model(name: str) -> None:
    section = conf(f"model/{name}")
    assert set(section["prompts"]) - {"letter", "exam"} == {"caption", "vqa"}
    assert section["prompts"]["vqa"].count("{}") == 1
    assert section["chat"] == "template" or section["chat"].count("{image}") == section["chat"].count("{}") == 1
    assert section["hub_id"]
    with pytest.raises(Exception, match=section["hub_id"]):  # planned up to the weights, which are not here
        plan(f"model={name}", "part=vision", "quant.bits=3")
