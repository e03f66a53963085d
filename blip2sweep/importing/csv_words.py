"""Words in tables of others: parts, widths such as `W4A16g128`, strategies, methods, yes and no."""

from __future__ import annotations

import re
from dataclasses import dataclass

from blip2sweep.compression.quantize import METHODS
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.models.part import Part

UNTOUCHED = frozenset(
    "none fp16 bf16 fp32 fp float16 bfloat16 float32 half full fullprecision unquantized unquantised original baseline w16a16 w32a32 "
    "fp16bf16 bf16fp16 - – — no".split()
)  # fmt: skip
ALL = frozenset("all whole full everything wholemodel fullmodel allparts model".split())
PARTS = {  # by role
    "vision": "vit visual vision visionencoder visualencoder imageencoder visionmodel visiontower visionpart",
    "connector": "qformer qf bridge connector",
    "language": "llm lm language languagemodel textmodel decoder opt t5 flant5",
}
STRATEGIES = {"channel": "channel perchannel channelwise row perrow rowwise", "tensor": "tensor pertensor tensorwise",
              "group": "group pergroup groupwise groups block blockwise"}  # fmt: skip
METHOD_NAMES = {"roundtonearest": "rtn", "llmint8": "int8", "bnbint8": "int8", "bitsandbytesint8": "int8", "bnbnf4": "nf4",
                "bitsandbytesnf4": "nf4", "bnbfp4": "fp4", "fp8": "float8", "sq": "smoothquant", "gptqv1": "gptq"}  # fmt: skip
WIDTH = re.compile(
    r"(?:w|u?int|weight)?(?P<bits>\d+)(?:\.0*)?(?:bits?|b)?(?:a(?P<input>\d+))?(?:g(?P<group>-?\d+)|(?P<after>\d+)g)?"
)


@dataclass(frozen=True)
class Width:
    """A width as a word gives it.

    bits: of a weight, None for a part that is left alone; input: bits of activations; group: number of weights that
    share a scale, -1 for a row; method: of a word such as `nf4`, which names one.
    """

    bits: int | None
    input: int | None = None
    group: int | None = None
    method: str | None = None


def squeezed(word: str) -> str:
    """The word in small letters, without the signs between letters: `INT4-g128` -> `int4g128`.

    Signs of numbers stay.
    """
    return re.sub(r"(?<=[a-z0-9])[-_ /.]+(?=[a-z])|(?<=[a-z])[-_ /.]+(?=\d)", "", word.lower().strip())


def untouched(word: str) -> bool:
    """Whether a word says that a part or the model was not quantized."""
    return squeezed(word) in UNTOUCHED


def width_of(word: str) -> Width | None:
    """The width in a word, or None."""
    text = squeezed(word)
    if text in UNTOUCHED or re.fullmatch(r"32(\.0*)?", text):
        return Width(None)
    name = METHOD_NAMES.get(text, "" if text == "int8" else text)  # `int8` alone is a width that any method may have
    if name in METHODS and len(METHODS[name].bits) == 1:
        return Width(METHODS[name].bits[0], method=name)
    found = WIDTH.fullmatch(text)
    if found is None:
        return None
    group = found["group"] or found["after"]
    return Width(int(found["bits"]), int(found["input"]) if found["input"] else None, int(group) if group else None)


def is_width(word: str) -> bool:
    return width_of(word) is not None


def part_words(part: Part, anatomy: Anatomy) -> list[str]:
    """Names of a part in letters and digits: its own, and those of its role where it has that role alone."""
    alone = anatomy.role(part.role) == (part,)
    return [re.sub(r"[^a-z0-9]", "", part.name.lower()), *(PARTS[part.role].split() if alone else [])]


def parts_of(word: str, anatomy: Anatomy) -> list[str] | None:
    """The addressable names in a cell of the column `part`.

    [] for the untouched model, None where a name is unknown.
    """
    if untouched(word):
        return []
    if squeezed(word) in ALL:
        return list(anatomy.parts)
    named = {w: (p.name,) for p in anatomy.parts.values() for w in part_words(p, anatomy)}
    found: list[str] = []
    for piece in re.split(r"\s*[+,&]\s*", word.strip()):
        names = anatomy.spellings.get(piece) or named.get(re.sub(r"[^a-z0-9]", "", piece.lower()))
        if names is None:
            return None
        found += names
    return list(dict.fromkeys(found))


def strategy_of(word: str) -> str | None:
    text = re.sub(r"[^a-z]", "", word.lower())
    return next((s for s, words in STRATEGIES.items() if text in words.split()), None)


def method_of(word: str) -> str | None:
    text = re.sub(r"[^a-z0-9]", "", word.lower())
    names = {m.replace("_", ""): m for m in METHODS}
    return names.get(METHOD_NAMES.get(text, text))


def group_of(word: str) -> int | None:
    """The group size in `128`, `128.0` or `g128`. -1 for `-1` and `per-channel`, None for any other word."""
    if strategy_of(word) == "channel" or untouched(word):
        return -1
    found = re.fullmatch(r"g?(-1|[1-9]\d*)(?:\.0*)?", word.lower().strip())
    return int(found[1]) if found else None


def yes_or_no(word: str) -> bool | None:
    text = re.sub(r"\.0*$", "", word.lower().strip())
    yes, no = "true yes y 1 sym symmetric t".split(), "false no n 0 asym asymmetric f".split()
    return True if text in yes else False if text in no else None
