"""The arithmetic a cell cannot do without, from the shapes alone, and what the machine could do at best."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

PEAK = {"H200": 790e12, "H100": 790e12, "A100": 312e12}  # bf16 matrix products a second, as measured or published


class Flops(NamedTuple):
    """Floating-point operations an image: a multiplication and an addition count as two."""

    vision: float
    bridge: float
    language: float


def flops(config: Mapping[str, Any], new_tokens: int) -> Flops:
    """Matrix products of one image through the ViT, the Q-Former, and the language model (prefill and decoding)."""
    if "qformer_config" not in config:
        return _llava(config, new_tokens)
    v, q, t = config["vision_config"], config["qformer_config"], config["text_config"]
    seen = (v["image_size"] // v["patch_size"]) ** 2 + 1
    queries = config["num_query_tokens"]
    vision = _blocks(seen, seen, v["hidden_size"], v["intermediate_size"], v["num_hidden_layers"])
    bridge = _blocks(queries, queries, q["hidden_size"], q["intermediate_size"], q["num_hidden_layers"])
    crossing = q["num_hidden_layers"] // q["cross_attention_frequency"]
    bridge += crossing * (4 * queries * q["hidden_size"] ** 2 + 4 * seen * v["hidden_size"] * q["hidden_size"])
    tokens = queries + new_tokens  # the prompt is one BOS; the last token written is not read
    language = _blocks(tokens, tokens, t["hidden_size"], t["ffn_dim"], t["num_hidden_layers"])
    language += 2 * new_tokens * t["hidden_size"] * t.get("vocab_size", 512)
    return Flops(vision, bridge, language)


def blocks_read(config: Mapping[str, Any]) -> int:
    """Blocks of the vision tower whose outputs are read: LLaVA's features are earlier states than the last."""
    return int(config["vision_config"]["num_hidden_layers"] + 1 + config.get("vision_feature_layer", -1))


def _llava(config: Mapping[str, Any], new_tokens: int) -> Flops:
    """Tower, projector of two layers, and a language model whose MLP has a gate. The text of the prompt is left out."""
    v, t = config["vision_config"], config["text_config"]
    patches = (v["image_size"] // v["patch_size"]) ** 2
    vision = _blocks(patches + 1, patches + 1, v["hidden_size"], v["intermediate_size"], blocks_read(config))
    bridge = 2 * patches * t["hidden_size"] * (v["hidden_size"] + t["hidden_size"])
    tokens = patches + new_tokens
    language = _blocks(tokens, tokens, t["hidden_size"], 1.5 * t["intermediate_size"], t["num_hidden_layers"])
    language += 2 * new_tokens * t["hidden_size"] * t.get("vocab_size", 512)
    return Flops(vision, bridge, language)


def _blocks(tokens: int, context: int, width: int, inner: float, n: int) -> float:
    """n transformer blocks: four projections, attention, two layers of the MLP."""
    return n * (2 * tokens * (4 * width**2 + 2 * width * inner) + 4 * tokens * context * width)


def peak(device: str) -> float:
    """Operations a second at best: known for a GPU, else those of a large float32 product on this process's threads."""
    if device == "cuda":
        name = torch.cuda.get_device_name()
        return next((v for k, v in PEAK.items() if k in name), measured("cuda", torch.bfloat16))
    return measured("cpu", torch.float32)


def measured(device: str, dtype: torch.dtype) -> float:
    """Operations a second of the best of five products of large square matrices."""
    n = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        float((a @ b)[0, 0])  # reading a number waits for the device
        best = max(best, 2 * n**3 / (time.perf_counter() - start))
    return best
