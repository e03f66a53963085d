"""What vLLM's classes take: names, fused layers, kernels. vLLM itself is not run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.commands.export import export
from tests.exporting.fresh import LOADER, digests, reload
from tests.exporting.test_compressed_tensors import GROUPS, job_of, mistakes

HALF, SYMMETRIC = ("model.stored=float16",), ("quant.symmetric=true",)
LARGE = ("model=llava-1.5-7b", "model.path=/nonexistent")
TAKEN: Mapping[str, tuple[str, ...]] = {
    "tiny, symmetric groups": ("part=vit+llm", "quant.bits=4", *GROUPS, *SYMMETRIC, *HALF),
    "8 bits": ("part=vit+llm", "quant.bits=8", *GROUPS, *SYMMETRIC, *HALF),
    "llava": (*LARGE, "part=vision+language", "quant.bits=4", "quant.strategy=group", "quant.group_size=128"),
    "llava by row": (*LARGE, "part=language", "quant.bits=4"),
    "one scheme for q, k and v": (
        *LARGE, "part=language", "quant.bits=4", "rules.a.target=language:all:q_proj+k_proj+v_proj", "rules.a.bits=8", "rules.a.symmetric=true"),
}  # fmt: skip
REFUSED: Mapping[str, tuple[tuple[str, ...], str]] = {
    "float32": (("part=llm", "quant.bits=4", *GROUPS, *SYMMETRIC), "computes in 16 bits, and this is stored in float32"),
    "the connector": (("part=all", "quant.bits=4", *GROUPS, *SYMMETRIC, *HALF), "its connector has no packed layers (qformer."),
    "3 bits": (("part=llm", "quant.bits=3", *GROUPS, *HALF), "no kernel for 3 bits asymmetric"),
    "8 bits asymmetric": ((*LARGE, "part=language", "quant.bits=8"), "no kernel for 8 bits asymmetric"),
    "groups of 16": ((*LARGE, "part=language", "quant.bits=4", "quant.strategy=group", "quant.group_size=16"), "no kernel for groups of 16"),
    "a small row": (("part=llm", "quant.bits=4", *SYMMETRIC, *HALF), "no kernel for one scale a row of a layer of 64 x 64"),
    "two schemes in a fused layer": (
        (*LARGE, "part=language", "quant.bits=4", "layers=attention", "rules.a.target=language:0:q_proj", "rules.a.bits=8", "rules.a.symmetric=true"),
        "fuses layers that have several schemes here (1 times, such as model.language_model.layers.0.self_attn: q_proj, k_proj, v_proj)"),
    "half of a fused layer": ((*LARGE, "part=language", "quant.bits=4", "layers=up_proj"), "fuses layers that have several schemes"),
    "another model": (("model=blip2-flan-t5-xl", "model.path=/nonexistent", "part=llm", "quant.bits=4", *GROUPS), "neither BLIP-2 with OPT nor LLaVA"),
}  # fmt: skip


@pytest.mark.parametrize("name", TAKEN)
def test_what_vllm_takes(name: str) -> None:
    assert mistakes(TAKEN[name], "vllm") == []


@pytest.mark.parametrize("name", REFUSED)
def test_what_vllm_does_not_take_is_one_line(name: str) -> None:
    words, told = REFUSED[name]
    found = mistakes(words, "vllm")
    assert any(told in line for line in found), found
    assert all("; right: " in line and "\n" not in line for line in found)


def scheme_of(name: str, config: dict[str, Any]) -> object:
    """What vLLM's `find_matched_target` and `should_ignore_layer` find for a module: by whole name or by `re.match`."""

    def meant(targets: list[str]) -> bool:
        return any(re.match(t[3:], name) if t.startswith("re:") else t == name for t in targets)

    if meant(config["ignore"]):
        return None
    (found,) = [g["weights"]["num_bits"] for g in config["config_groups"].values() if meant(g["targets"])]
    return found


@pytest.mark.thorough
def test_names_are_those_of_vllms_modules(tmp_path: Path) -> None:
    words = ("part=vit+llm", "quant.bits=4", *GROUPS, *SYMMETRIC, *HALF, "blocks=1-5", "per_part.llm.bits=8")
    job, backend = job_of(*words), TorchBackend({"device": "cpu"})
    export(job, "compressed-tensors", tmp_path / "to", "vllm", backend.made)
    config = json.loads((tmp_path / "to" / "config.json").read_text())["quantization_config"]
    for prefix in ("vision_model.", ".", ""):  # its class of BLIP-2 makes the tower without a prefix
        assert scheme_of(f"{prefix}encoder.layers.1.self_attn.qkv", config) == 4
        assert scheme_of(f"{prefix}encoder.layers.0.mlp.fc1", config) is None
    for leaf in ("q_proj", "k_proj", "v_proj", "out_proj"):
        assert scheme_of(f"language_model.model.decoder.layers.2.self_attn.{leaf}", config) == 8
        assert scheme_of(f"language_model.model.decoder.layers.0.self_attn.{leaf}", config) is None
    assert scheme_of("language_projection", config) is None
    assert "vllm serve . --dtype float16" in (tmp_path / "to" / "README.md").read_text()


@pytest.mark.thorough
def test_names_of_llava_are_those_of_published_checkpoints(tmp_path: Path) -> None:
    words = ("model=tiny-llava", "part=vision+language", "quant.bits=4", *GROUPS, *SYMMETRIC, *HALF)
    job, backend = job_of(*words), TorchBackend({"device": "cpu"})
    export(job, "compressed-tensors", tmp_path / "to", "vllm", backend.made)
    with safe_open(str(tmp_path / "to" / "model.safetensors"), "pt") as file:
        names = set(file.keys())
    assert "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight_packed" in names
    assert "language_model.model.layers.0.self_attn.q_proj.weight_packed" in names
    config = json.loads((tmp_path / "to" / "config.json").read_text())["quantization_config"]
    assert scheme_of("language_model.model.layers.0.mlp.gate_proj", config) == 4
    assert scheme_of("vision_tower.vision_model.encoder.layers.0.mlp.fc1", config) == 4
    assert scheme_of("multi_modal_projector.linear_1", config) is None
    (again,) = reload([(tmp_path / "to", LOADER)])
    assert backend.state is not None
    assert again.weights == digests(backend.state.loaded.model)
