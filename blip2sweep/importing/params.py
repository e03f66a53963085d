"""Numbers of parameters of the shipped models, tied ones counted once. Imported rows need them for the model's size."""

from __future__ import annotations

from blip2sweep.errors import UserError

# Counted on the modules that transformers builds from conf/model, with the ties that it says; those of `tiny`,
# `tiny-llava` and `tiny-itm` on their weights
# (tests/importing/test_table_csv.py).
PARAMS = {
    "tiny": 1_005_056,
    "tiny-llava": 678_208,
    "tiny-itm": 697_922,
    "blip2-opt-2.7b": 3_744_761_856,
    "blip2-opt-2.7b-coco": 3_745_353_216,
    "blip2-opt-6.7b": 7_752_869_376,
    "blip2-flan-t5-xl": 3_942_446_592,
    "blip2-flan-t5-xxl": 12_229_596_672,
    "blip-image-captioning-base": 223_971_644,
    "blip-image-captioning-large": 446_290_492,
    "blip-vqa-base": 361_230_140,
    "blip2-itm-vit-g": 1_172_032_258,
    "blip2-itm-vit-g-coco": 1_172_623_618,
    "gemma-3-4b": 4_300_079_472,
    "idefics3-8b": 8_462_086_384,
    "instructblip-flan-t5-xl": 4_022_969_088,
    "instructblip-vicuna-7b": 7_913_202_432,
    "internvl3-1b": 938_193_024,
    "llava-1.5-13b": 13_351_494_656,
    "llava-1.5-7b": 7_063_427_072,
    "llava-onevision-0.5b": 893_675_552,
    "llava-v1.6-mistral-7b": 7_566_747_648,
    "paligemma-3b-224": 2_923_466_480,
    "qwen2.5-vl-3b": 3_754_622_976,
    "qwen2.5-vl-7b": 8_292_166_656,
    "qwen3-vl-2b": 2_127_532_032,
    "smolvlm-256m": 256_484_928,
    "smolvlm-500m": 507_482_304,
}


def model_params(model: str, given: int | None = None) -> int:
    """The number of parameters of a whole model: the given one, else a shipped model's.

    Raises UserError without either.
    """
    if given is not None:
        if given < 1:
            raise UserError(f"--params {given}: right: the number of parameters of the whole model")
        return given
    if model not in PARAMS:
        raise UserError(f"model {model}: its number of parameters is not known here; right: --params N")
    return PARAMS[model]
