"""Which files of a folder are its weights, as transformers chooses them, and which files must not be there.

A checkpoint is safetensors in full precision. Each other format is refused by a sentence of its own. So is an adapter,
which transformers would apply or leave out without a word.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from blip2sweep.errors import UserError
from blip2sweep.models.checkpoints.headers import is_file, once, shown
from blip2sweep.models.checkpoints.quantized import UNDERSTOOD, mistakes, quantized, quantized_in

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
# Small files beside the weights that change predictions.
SIDE_FILES = (
    "config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json", "tokenizer*.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model", "chat_template*",
    "qformer_tokenizer/*",
)  # fmt: skip
ADAPTERS = ("adapter_config.json", "adapter_model.*")
QUANTIZED = ("quantize_config.json", "quant_config.json", "quantization_config.json", "hf_quant_config.json")
WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.gguf", "*.msgpack", "*.h5", "*.onnx", "*.incomplete")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint: one file, or the shards of the index.

    Raises UserError with all mistakes in one line, where there are none, where some are missing, or where files of
    another model are beside them.
    """
    try:
        wrong = [*_broken_links(folder), *_beside(folder)]
        if not wrong and not is_file(folder / SINGLE) and not is_file(folder / INDEX):
            wrong = [_instead(folder)]
        names = [SINGLE] if is_file(folder / SINGLE) else [] if wrong else list(read_index(folder).values())
        wrong += [f"{INDEX} names the shard {shown(n)}, which is not there" for n in _missing(folder, names)]
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}); right: a folder that can") from error
    if wrong:
        raise UserError(f"{folder}: {'; '.join(wrong)}; right: {_right(folder, wrong)}")
    return [folder / name for name in sorted(set(names))]


def read_index(folder: Path) -> dict[str, str]:
    """{tensor: shard} of the index; empty where the checkpoint is one file."""
    path = folder / INDEX
    if is_file(folder / SINGLE):
        return {}
    try:
        found = json.loads(path.read_bytes(), object_pairs_hook=once)["weight_map"]
        if not isinstance(found, dict) or not found or not all(isinstance(v, str) for v in found.values()):
            raise TypeError("weight_map is no object of file names")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path}: not a safetensors index ({type(error).__name__}: {shown(error)}); right: download it again"
        ) from error
    return found


def _missing(folder: Path, names: list[str]) -> list[str]:
    return [n for n in sorted(set(names)) if Path(n).name != n or not is_file(folder / n)]


def side_files(folder: Path) -> list[Path]:
    """The files beside the weights that change predictions, sorted by name."""
    return sorted({p for pattern in SIDE_FILES for p in folder.glob(pattern) if is_file(p)})


# ---- what is there instead


def _broken_links(folder: Path) -> Iterator[str]:
    """Links to nothing: a snapshot of the Hugging Face cache whose blobs were removed, or a copy of the links alone."""
    relevant = _named(folder, (*WEIGHTS, *SIDE_FILES, *ADAPTERS, "*.json"))
    broken = [n for n in relevant if (folder / n).is_symlink() and not (folder / n).exists()]
    if broken:
        yield f"{_some(broken)} {'is a link' if len(broken) == 1 else 'are links'} to nothing (their content was removed)"


def _beside(folder: Path) -> Iterator[str]:
    adapter = _named(folder, ADAPTERS)
    if adapter and not _named(folder, (SINGLE, INDEX)):
        yield f"an adapter alone ({_some(adapter)}), without the model it belongs to"
    elif adapter:
        yield f"an adapter lies beside the model ({_some(adapter)}); it would not be applied"
    for name in _named(folder, QUANTIZED) if quantized_in(folder) is None else ():
        yield f"already quantized ({name} lies beside the weights, and config.json says nothing of it that is understood)"


def _instead(folder: Path) -> str:
    found = _named(folder, WEIGHTS)
    variants = [n for n in found if n.endswith(".safetensors") and n.startswith("model.")]
    shards = [n for n in found if n.endswith(".safetensors") and "-of-" in n]
    pickles = [n for n in found if n.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    if variants or _named(folder, ("model.safetensors.index.*.json", "model.*.safetensors.index.json")):
        return f"no {SINGLE}, only a variant ({_some(variants or found)})"
    if shards:
        return f"shards ({_some(shards)}) without {INDEX}"
    if pickles:
        return f"no {SINGLE} (found: {_some(pickles)}): pickles can run code when they are read"
    return f"no {SINGLE} (found: {_some(found) or 'no weights at all'})"


def _right(folder: Path, wrong: list[str]) -> str:
    problems = " ".join(wrong)
    if "adapter" in problems:
        return "a folder of the whole model, with the adapter merged into its weights (peft: merge_and_unload)"
    if "already quantized" in problems:
        return "the checkpoint it was made from"
    if "variant" in problems:
        return f"save it without variant, or link its files under the plain names in a folder of their own ({SINGLE})"
    if "pickles" in problems:
        return "weights saved as safetensors, never pickles"
    snapshot = next((p.name for p in folder.absolute().parents if p.name.startswith("models--")), None)
    if snapshot:
        return f"run `hf download {snapshot.removeprefix('models--').replace('--', '/')}`"
    return f"the whole checkpoint ({SINGLE}, or {INDEX} and its shards)"


def _named(folder: Path, patterns: tuple[str, ...]) -> list[str]:
    return sorted({p.name for pattern in patterns for p in folder.glob(pattern)})


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(shown(n) for n in names[:4]) + more


# ---- already quantized, as config.json says


def quantization(config: Mapping[str, object]) -> str | None:
    """What config.json says of a quantization of the weights that is not understood here, and what is; else None."""
    told = None if quantized(config) is not None else any_quantization(config)
    return told and f"{told} ({'; '.join(mistakes(config))}; understood: {UNDERSTOOD})"


def any_quantization(config: Mapping[str, object]) -> str | None:
    """What config.json says of a quantization of the weights; None where it says nothing."""
    for place in ("", "text_config", "vision_config", "qformer_config"):
        section = config.get(place) if place else config
        for name in ("quantization_config", "compression_config"):
            found = section.get(name) if isinstance(section, Mapping) else None
            if found:
                fields = found if isinstance(found, Mapping) else {}
                method = fields.get("quant_method") or fields.get("quant_type") or "method not named"
                return f"{place + '.' if place else ''}{name}: {shown(method)}"
    return None
