"""What config.json says of weights that are stored as integers, for the formats that are understood here.

`quantization_config` of transformers: gptq (AutoGPTQ, GPTQModel), awq (AutoAWQ's gemm), compressed-tensors (vLLM's
llm-compressor). Each format's tensors are described in blip2sweep/models/checkpoints/packed.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from blip2sweep.errors import UserError
from blip2sweep.models.checkpoints.headers import shown

GPTQ, AWQ, COMPRESSED = "gptq", "awq", "compressed-tensors"
GPTQ_BITS = (2, 3, 4, 8)
UNDERSTOOD = "gptq (checkpoint_format gptq or gptq_v2), awq (version gemm) and compressed-tensors (pack-quantized, int-quantized or naive-quantized; weights alone)"
PLACES = ("quantization_config", "compression_config")


@dataclass(frozen=True)
class Scheme:
    """How the weights of some layers are stored.

    bits: of a code. group_size: None where a row, or the whole tensor, has one scale. strategy: `tensor`, `channel` or
    `group`. symmetric: whether there is one code of zero for all. targets: of compressed-tensors, names or `re:…`.
    """

    bits: int
    group_size: int | None
    strategy: str
    symmetric: bool
    targets: tuple[str, ...] = ()

    def means(self, module: str) -> bool:
        """Whether a target names a module. The name of a class means all that no other scheme names."""
        return any(_means(target, module) for target in self.targets)


@dataclass(frozen=True)
class Quantized:
    """method: `gptq`, `awq` or `compressed-tensors`. format: its variant. schemes: one, or those of config_groups."""

    method: str
    format: str
    schemes: tuple[Scheme, ...]

    def scheme(self, module: str) -> Scheme:
        """The scheme of a module whose integers are there: that which names it, else the first one."""
        return next((s for s in self.schemes if s.means(module)), self.schemes[0])


def quantized(config: Mapping[str, object]) -> Quantized | None:
    """What config.json says of integers; None where it says nothing, or something that is not understood."""
    try:
        return _read(_section(config))
    except UserError:
        return None


def mistakes(config: Mapping[str, object]) -> list[str]:
    """Why the quantization of a config.json is not understood; empty where it is, or where there is none."""
    try:
        _read(_section(config))
    except UserError as error:
        return [str(error)]
    return []


def quantized_in(folder: Path) -> Quantized | None:
    """`quantized` of a folder's config.json; None where it cannot be read, which others say."""
    try:
        found = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return quantized(found) if isinstance(found, dict) else None


# ---- what is understood


def _section(config: Mapping[str, object]) -> Mapping[str, object] | None:
    """The section, or where an inner config has one: only the whole model's is read."""
    found = next((config[name] for name in PLACES if config.get(name)), None)
    if found is not None and not isinstance(found, Mapping):
        raise UserError("quantization_config is no object")
    for inner in ("text_config", "vision_config", "qformer_config"):
        section = config.get(inner)
        if isinstance(section, Mapping) and any(section.get(name) for name in PLACES) and found is None:
            raise UserError(f"{inner} has a quantization_config of its own")
    return found


def _read(section: Mapping[str, object] | None) -> Quantized | None:
    if section is None:
        return None
    method = section.get("quant_method")
    readers = {GPTQ: _gptq, AWQ: _awq, COMPRESSED: _compressed}
    if method not in readers:
        raise UserError(f"quant_method is {shown(method)}")
    return readers[str(method)](section)


def _gptq(section: Mapping[str, object]) -> Quantized:
    form = str(section.get("checkpoint_format") or section.get("format") or "gptq")
    bits = _whole(section, "bits", GPTQ_BITS)
    dynamic = section.get("dynamic")
    own = [k for k in dynamic if not str(k).startswith("-:")] if isinstance(dynamic, Mapping) else []
    wrong = [
        *([f"checkpoint_format is {shown(form)}"] if form not in ("gptq", "gptq_v2") else []),
        *(["is_marlin_format is set"] if section.get("is_marlin_format") else []),
        *([f"pack_dtype is {shown(section['pack_dtype'])}"] if section.get("pack_dtype", "int32") != "int32" else []),
        *([f"dynamic gives {shown(own[0])} other widths"] if own else []),
    ]
    _refuse(GPTQ, wrong)
    return Quantized(GPTQ, form, (_grouped(section, bits, section.get("sym") is not False),))


def _awq(section: Mapping[str, object]) -> Quantized:
    version = str(section.get("version") or "gemm").lower()
    wrong = [
        *([f"version is {shown(version)}"] if version != "gemm" else []),
        *(["zero_point is false"] if section.get("zero_point") is False else []),
    ]
    _refuse(AWQ, wrong)
    width = {"bits": section.get("bits", section.get("w_bit"))}
    size = {"group_size": section.get("group_size", section.get("q_group_size"))}
    return Quantized(AWQ, version, (_grouped(size, _whole(width, "bits", (4,)), symmetric=False),))


def _grouped(section: Mapping[str, object], bits: int, symmetric: bool) -> Scheme:
    size = section.get("group_size", -1)
    if type(size) is not int or (size != -1 and size < 1):
        raise UserError(f"group_size is {shown(size)}")
    return Scheme(bits, None if size == -1 else size, "channel" if size == -1 else "group", symmetric)


def _compressed(section: Mapping[str, object]) -> Quantized:
    form = section.get("format")
    groups = section.get("config_groups")
    inner = groups.values() if isinstance(groups, Mapping) else ()
    own = [g for g in inner if isinstance(g, Mapping)]
    sparse, status = section.get("sparsity_config"), section.get("quantization_status", "compressed")
    sparse = sparse.get("format") if isinstance(sparse, Mapping) else None
    wrong = [
        *([f"format is {shown(form)}"] if form not in ("pack-quantized", "int-quantized", "naive-quantized") else []),
        *(["config_groups has no groups"] if not own else []),
        *([f"sparsity_config has the format {shown(sparse)}"] if sparse not in (None, "dense") else []),
        *([f"quantization_status is {shown(status)}"] if status not in ("compressed", "frozen") else []),
        *([f"{name} is set" for name in ("kv_cache_scheme", "transform_config") if section.get(name)]),
        *(w for g in own for w in _group_mistakes(g, form)),
    ]
    _refuse(COMPRESSED, list(dict.fromkeys(wrong)))
    return Quantized(COMPRESSED, str(form), tuple(_scheme(g) for g in own))


def _group_mistakes(group: Mapping[str, object], form: object) -> Iterator[str]:
    weights = group.get("weights")
    yield from (f"{n} are quantized" for n in ("input_activations", "output_activations") if group.get(n))
    if group.get("format") not in (None, form):
        yield f"a group has the format {shown(group.get('format'))}"
    if not isinstance(weights, Mapping):
        yield "a group has no weights"
        return
    if weights.get("type", "int") != "int":
        yield f"weights.type is {shown(weights.get('type'))}"
    if type(bits := weights.get("num_bits")) is not int or not 1 <= bits <= 8:
        yield f"weights.num_bits is {shown(bits)}"
    if weights.get("strategy") not in ("tensor", "channel", "group"):
        yield f"weights.strategy is {shown(weights.get('strategy'))}"
    size = weights.get("group_size")
    if weights.get("strategy") == "group" and (type(size) is not int or size < 1):
        yield f"weights.group_size is {shown(size)}"


def _scheme(group: Mapping[str, object]) -> Scheme:
    weights, targets = group["weights"], group.get("targets")
    assert isinstance(weights, Mapping)
    named = tuple(str(t) for t in targets) if isinstance(targets, Sequence) and not isinstance(targets, str) else ()
    size = weights["group_size"] if weights["strategy"] == "group" else None
    return Scheme(weights["num_bits"], size, weights["strategy"], weights.get("symmetric") is not False, named)


def _means(target: str, module: str) -> bool:
    if not target.startswith("re:"):
        return target == module or module.endswith(f".{target}")
    try:
        return re.match(target.removeprefix("re:"), module) is not None
    except re.error:
        return False


def _whole(section: Mapping[str, object], name: str, values: Sequence[int]) -> int:
    found = section.get(name)
    if type(found) is not int or found not in values:
        raise UserError(f"{name} is {shown(found)}, not {' or '.join(map(str, values))}")
    return found


def _refuse(method: str, wrong: Sequence[str]) -> None:
    if wrong:
        raise UserError(f"{method}: {', '.join(wrong)}")
