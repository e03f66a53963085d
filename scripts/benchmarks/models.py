"""Models and images to measure on: the embedded default, and random ones of the real shapes, written to a folder."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import yaml
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoProcessor,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessorPil,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from scripts.benchmarks import llava
from scripts.benchmarks.llava import LLAVA_MID, in_dtype

if TYPE_CHECKING:
    from blip2sweep.wire.model_section import ModelSection

CONF = Path(__file__).resolve().parents[2] / "conf"
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<image>"]
# About 380 MB in float32, with the proportions of blip2-opt-2.7b: four fifths of an image's arithmetic in the ViT.
MID: dict[str, Any] = {
    "name": "mid", "dtype": "float32",
    "config": {
        "num_query_tokens": 32,
        "vision_config": {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 13, "num_attention_heads": 8, "image_size": 224, "patch_size": 14, "qkv_bias": True},
        "qformer_config": {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 6, "encoder_hidden_size": 512, "cross_attention_frequency": 2, "vocab_size": 1000},
        "text_config": {"model_type": "opt", "hidden_size": 640, "ffn_dim": 2560, "num_hidden_layers": 8, "num_attention_heads": 8, "word_embed_proj_dim": 640, "vocab_size": 8192},
    },
}  # fmt: skip
LLAVA = "llava-mid"
SHIPPED = ("tiny", "tiny-llava")
QUESTIONS = 3  # of a picture
# name -> (whose anatomy, what stands over its config)
RANDOM: dict[str, tuple[str, Mapping[str, Any]]] = {"mid": ("tiny", MID), LLAVA: ("llava-1.5-7b", LLAVA_MID)}


def conf(name: str) -> dict[str, Any]:
    """conf/model/NAME.yaml with its defaults merged, without Hydra."""
    own = yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text())
    merged: dict[str, Any] = {}
    for base in own.pop("defaults", []):
        if base != "_self_":
            merged = _merged(merged, conf(base))
    return _merged(merged, own)


def _merged(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    deep = {k: _merged(a[k], v) for k, v in b.items() if isinstance(v, dict) and isinstance(a.get(k), dict)}
    return {**a, **b, **deep}


def model_config(name: str) -> ModelSection:
    """The `model` section of a cell's config."""
    of, own = RANDOM.get(name, (name, {}))
    return cast("ModelSection", {"family": "opt", "device_map": None, "dtype_per_part": {}, **_merged(conf(of), own)})


def text_of(config: Mapping[str, Any], folder: Path | None = None) -> str:
    """What the model reads with every image: its prompt for captions in its chat's text; empty for BLIP-2. folder: of a
    checkpoint, whose template counts where the config says so."""
    prompt = (config.get("prompts") or {}).get("caption", "")
    if config.get("chat") == "template":
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        turns = [{"role": "user", "content": content}]
        return str(AutoProcessor.from_pretrained(folder).apply_chat_template(turns, add_generation_prompt=True))
    return str(config.get("chat") or "").replace("{image}", SPECIAL[-1]).replace("{}", prompt)


def write_model(config: ModelSection, folder: Path, device: str) -> None:
    """A random checkpoint of the config's shapes, with a tokenizer of as many made-up words."""
    draw_model(config, folder, device).save_pretrained(folder)


def draw_model(config: ModelSection, folder: Path, device: str) -> PreTrainedModel:
    """The same model without its weights' file. Its processor is written to `folder`."""
    shapes = cast("dict[str, Any]", config["config"])
    tokenizer = _tokenizer(shapes["text_config"]["vocab_size"])
    if config.get("architecture") == "image_text":
        return llava.draw(config, tokenizer, folder, device)
    torch.manual_seed(0)
    sizes = _with_initial_values(shapes)
    with torch.device(device):
        model = Blip2ForConditionalGeneration(Blip2Config(**sizes, image_token_index=SPECIAL.index("<image>")))
    torch.nn.init.normal_(model.query_tokens)
    torch.nn.init.normal_(model.language_projection.weight, std=0.5)  # else every picture looks alike
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module.bias is not None:
            torch.nn.init.normal_(module.bias, std=0.02)  # zeros are no bias to quantize
    size = sizes["vision_config"]["image_size"]
    image_processor = BlipImageProcessorPil(size={"height": size, "width": size})
    Blip2Processor(image_processor, tokenizer, num_query_tokens=sizes["num_query_tokens"]).save_pretrained(folder)
    return in_dtype(model, config["dtype"])


def _with_initial_values(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """`initializer_range` of the ViT is 1e-10 by default, which makes every image alike."""
    text = {**sizes["text_config"], "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2}
    return {**sizes, "vision_config": {**sizes["vision_config"], "initializer_range": 0.05}, "text_config": text}


def _tokenizer(n: int) -> PreTrainedTokenizerFast:
    words = [*SPECIAL, *(f"word{i}" for i in range(n - len(SPECIAL)))]
    rules = Tokenizer(WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    rules.pre_tokenizer = Whitespace()
    rules.add_special_tokens(SPECIAL)
    rules.post_processor = TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=rules, bos_token="</s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>",
        padding_side="left", additional_special_tokens=["<image>"],
    )  # fmt: skip


def write_images(folder: Path, n: int, kind: str = "caption") -> dict[str, Any]:
    """n smooth random JPEGs of 640 × 480, with five captions each in COCO's format, or with questions in VQAv2's; returns
    the `task` section."""
    rng, words = np.random.default_rng(0), random.Random(0)
    (folder / "val2014").mkdir(parents=True)
    (folder / "annotations").mkdir()
    images, captions, questions, answers = [], [], [], []
    for i in range(n):
        name = f"COCO_val2014_{i:012d}.jpg"
        pixels = Image.fromarray(rng.integers(0, 256, (15, 20, 3), dtype=np.uint8)).resize(
            (640, 480), Image.Resampling.BICUBIC
        )
        pixels.save(folder / "val2014" / name, quality=90)
        images.append({"id": i, "file_name": name})
        texts = [" ".join(f"word{words.randrange(400)}" for _ in range(10)) for _ in range(5)]
        captions += [{"id": 5 * i + k, "image_id": i, "caption": text} for k, text in enumerate(texts)]
        for k in range(QUESTIONS):
            ids = {"image_id": i, "question_id": QUESTIONS * i + k}
            questions.append({**ids, "question": " ".join(f"word{words.randrange(400)}" for _ in range(6 + k))})
            answer = f"word{words.randrange(400)}"
            given = [{"answer": answer, "answer_confidence": "yes", "answer_id": m + 1} for m in range(10)]
            answers.append({**ids, "multiple_choice_answer": answer, "answers": given})
    files = {
        "captions_val2014": {"images": images, "annotations": captions},
        "v2_OpenEnded_mscoco_val2014_questions": {"questions": questions},
        "v2_mscoco_val2014_annotations": {"annotations": answers},
    }
    for name, content in files.items():
        (folder / "annotations" / f"{name}.json").write_text(json.dumps(content))
    return task("random images", str(folder), None, kind=kind)


def task(name: str, data_dir: str, limit: int | None, nll_references: int = 1, kind: str = "caption") -> dict[str, Any]:
    """The `task` section of a cell's config."""
    form, metric = ("vqav2", "vqa_accuracy") if kind == "vqa" else ("coco", "cider")
    return {
        "name": name, "kind": kind, "format": form, "data_dir": data_dir, "split": "val2014", "limit": limit,
        "on_bad_image": "error", "nll_references": nll_references, "main_metric": metric, "note": None,
    }  # fmt: skip
