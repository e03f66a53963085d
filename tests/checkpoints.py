"""Model configs and small checkpoints for the tests: the shipped tiny OPT model, and a random T5 one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessorPil,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from blip2sweep.cache import disk as cache
from blip2sweep.canonical import digest
from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.models.architecture import implementation
from blip2sweep.models.checkpoints import inspect, verdict
from blip2sweep.models.checkpoints.content import STORE
from blip2sweep.recipe import Recipe, resolve_recipe
from tests.composing import composer

ROOT = Path(__file__).parent.parent
TINY = ROOT / "blip2sweep" / "assets" / "tiny"
T5_TEXT = {
    "model_type": "t5", "d_model": 32, "d_ff": 48, "d_kv": 8, "num_heads": 4, "num_layers": 2, "num_decoder_layers": 2,
    "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
}  # fmt: skip


def conf(name: str) -> dict[str, Any]:
    """A composed section of the config, such as `model/tiny`."""
    group, _, option = name.partition("/")
    return dict(composer().config((f"{group}={option}",))[group])


def tiny_config(**fields: Any) -> dict[str, Any]:
    return {**conf("model/tiny"), **fields}


def t5_config() -> dict[str, Any]:
    """The tiny model with a small T5 in place of OPT."""
    tiny, t5 = conf("model/tiny"), conf("model/blip2-flan-t5-xl")
    return {
        **tiny, "name": "tiny-t5", "family": "t5", "tied": t5["tied"],
        "parts": {**tiny["parts"], "llm": t5["parts"]["llm"]},
        "config": {**tiny["config"], "text_config": T5_TEXT},
    }  # fmt: skip


def write_t5(folder: Path) -> Path:
    """A random T5 BLIP-2 in the Hugging Face layout: the tiny model's tokenizer, but EOS after the text."""
    torch.manual_seed(0)
    rules = Tokenizer.from_file(str(TINY / "tokenizer.json"))
    rules.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=rules, eos_token="</s>", unk_token="</s>", pad_token="<pad>", padding_side="right"
    )
    image_processor = BlipImageProcessorPil(size={"height": 48, "width": 48})
    processor = Blip2Processor(image_processor, tokenizer, num_query_tokens=12)
    _random_model(len(tokenizer)).save_pretrained(folder)
    processor.save_pretrained(folder)
    _untie(folder / "model.safetensors")
    return folder


def _untie(path: Path) -> None:
    """Give it a head of its own, as Flan-T5 has."""
    tensors = load_file(path)
    tensors["language_model.lm_head.weight"] = torch.randn_like(tensors["language_model.shared.weight"])
    save_file(tensors, path, metadata={"format": "pt"})


def _random_model(vocabulary: int) -> Blip2ForConditionalGeneration:
    fields = t5_config()["config"]
    text = {**T5_TEXT, "vocab_size": vocabulary, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    vision = {**fields["vision_config"], "initializer_range": 0.05}  # its default of 1e-10 makes every image alike
    config = Blip2Config(
        **{**fields, "vision_config": vision, "text_config": text, "image_token_index": vocabulary - 1}
    )
    model = Blip2ForConditionalGeneration(config)
    torch.nn.init.normal_(model.query_tokens)
    torch.nn.init.normal_(model.language_projection.weight, std=0.5)
    return model


def recipe(anatomy: Anatomy, part: str = "all", blocks: str = "all", layers: str = "all", **quant: Any) -> Recipe:
    quant = {"method": "rtn", "bits": 3, **quant}
    return resolve_recipe({"part": part, "blocks": blocks, "layers": layers, "quant": quant}, anatomy)


# ---- damaged ones


def fails(*words: str) -> pytest.RaisesExc:
    """A UserError of one line that says all of these words, with nothing in it that a terminal would obey."""

    def one_line(error: BaseException) -> bool:
        said = str(error)
        return said.isprintable() and all(word in said for word in words)

    return pytest.raises(UserError, check=one_line)


def edit(path: Path, **fields: Any) -> None:
    """Set fields of a JSON file; a value of None stays there as null."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def edit_section(path: Path, section: str, **fields: Any) -> None:
    edit(path, **{section: {**json.loads(path.read_text())[section], **fields}})


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Load the tensors of a folder, change them in place, and save them."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def believe(folder: Path, model: Mapping[str, Any]) -> None:
    """Remember a verdict without mistakes, as if the folder had been whole when it was planned."""
    name = digest(["verdict", verdict.identity(inspect(folder), model), verdict.versions()])
    store = cache.of_user(STORE)
    assert store
    store.put(name, json.dumps({"beyond_half": []}).encode())


def build_meta(model_config: Mapping[str, Any]) -> PreTrainedModel:
    """The model of `model_config["config"]` on the meta device: real modules and shapes, no weights, no files."""
    own = implementation(model_config)
    with torch.device("meta"):
        return own.model_class(own.config_class(**model_config["config"])).eval()
