"""The section `model` of a checkpoint: found in its module tree, proven on a small random model of its structure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from transformers.utils import logging

from blip2sweep.models.config_file import first_line
from blip2sweep.models.discovery.classes import read, refusal
from blip2sweep.models.discovery.narrow import BLOCKS, narrowed
from blip2sweep.models.discovery.proof import NotProven, Small, behind, chat_of, random_model
from blip2sweep.models.discovery.sizes import Expressions
from blip2sweep.models.discovery.tree import Found, linear_share, lists
from blip2sweep.models.fields import factors, field, nested
from blip2sweep.models.image_text.adapter import TOKEN
from blip2sweep.models.image_text.chat import TEMPLATE
from blip2sweep.models.image_text.processor import read_processor
from blip2sweep.models.linear_share import LEAST
from blip2sweep.models.own_folder import dtype, folder_name
from blip2sweep.models.part import LANGUAGE, ROLES, VISION
from blip2sweep.models.shipped import shared
from blip2sweep.models.written_out import written_out
from blip2sweep.wire.pack import JsonObject

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

NAMED = ("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
         "vocab_size", "depth", "image_size", "patch_size")  # fmt: skip
ALWAYS = ("model_type", "image_token_id", "vision_feature_layer", "tie_word_embeddings")


def propose(folder: Path, name: str | None = None, partial: bool = False) -> JsonObject:
    """See `_propose`. One thread is faster for models so small, and gives the same bits on every machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _propose(folder, name, partial)
    finally:
        torch.set_num_threads(threads)


def _propose(folder: Path, name: str | None, partial: bool) -> JsonObject:
    """The section `model` of a checkpoint. name: the folder's own by default. partial: take one whose weights are mostly in
    no linear layer.

    Raises UserError, all reasons in one line, where something stays unclear.
    """
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    config, cls = read(folder)
    full, found, share = _tree(folder, cls, config, partial)
    small_config = _narrowed(folder, config)
    template, processor = _processor(folder, config, next(f.path for f in found if f.role == VISION))
    model = random_model(cls, small_config)
    _end(model, processor.tokenizer)
    _, narrow = _lists(folder, model)
    try:
        small = Small(model, processor, chat := chat_of(processor, template == TEMPLATE))
        dead = {one.path: behind(blocks, one) for one, blocks in small.unread(narrow)}
        found = [f for f in found if f.path in dead and dead[f.path][0] < (BLOCKS if f.n else 1)]
        (tower,) = [f for f in narrow if f.role == VISION]
        adapter = small.adapter(small.features(tower, dead[tower.path][0]))
    except (NotProven, RuntimeError, ValueError, TypeError, AttributeError) as error:
        reason = str(error) if isinstance(error, NotProven) else f"its small model fails ({first_line(error)})"
        raise refusal(folder, [reason]) from error
    configs = [written_out(config), written_out(small_config)]
    parts = _parts(found, {f.path: f for f in narrow}, dead, Expressions(configs))
    own: JsonObject = {
        "name": name or re.sub(r"[^\w.-]", "-", folder_name(folder)), "path": str(folder.absolute()),
        "architecture": "image_text", "family": "decoder", "dtype": dtype(configs[0]),
        **({"chat": chat} if chat else {}), "prompts": shared("_prompts")["prompts"], "adapter": {**adapter, TOKEN: processor.image_token},
        "config": _config(configs[0], parts), "parts": parts,
    }  # fmt: skip
    tied = _tied(full)
    return {**own, **({"tied": tied} if tied else {}), **({"allow_partial": True} if share < LEAST else {})}


def _end(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a small model the tokens that end and pad a text, which generation_config.json says for the checkpoint."""
    settings = model.generation_config
    settings.eos_token_id = tokenizer.eos_token_id if settings.eos_token_id is None else settings.eos_token_id
    settings.pad_token_id = tokenizer.pad_token_id if settings.pad_token_id is None else settings.pad_token_id


def _tree(
    folder: Path, cls: type[PreTrainedModel], config: PreTrainedConfig, partial: bool
) -> tuple[PreTrainedModel, list[Found], float]:
    try:
        with torch.device("meta"):
            model = cls(config)
    except Exception as error:  # a config of anybody's
        raise refusal(folder, [f"transformers cannot build the model ({first_line(error)})"]) from error
    share, found = _lists(folder, model)
    if share < LEAST and not partial:
        told = f"{share:.1%} of the weights in its blocks are in linear layers (--allow-partial takes it all the same)"
        raise refusal(folder, [told])
    return model, found, share


def _lists(folder: Path, model: PreTrainedModel) -> tuple[float, list[Found]]:
    found, wrong = lists(model)
    if wrong:
        raise refusal(folder, wrong)
    return linear_share(model, found), found


def _narrowed(folder: Path, config: PreTrainedConfig) -> PreTrainedConfig:
    try:
        return narrowed(config)
    except Exception as error:  # relations between sizes that only this class has
        raise refusal(folder, [f"no small model of its structure can be made ({first_line(error)})"]) from error


def _processor(folder: Path, config: PreTrainedConfig, blocks: str) -> tuple[str | None, ProcessorMixin]:
    """(chat, processor): with the checkpoint's chat template where it has one."""
    wrong = list[str]()
    for chat in (TEMPLATE, None):
        processor, wrong = read_processor(folder, config, chat, blocks)
        if processor is not None and not wrong:
            return chat, processor
    raise refusal(folder, wrong)


# ---- the parts


def _parts(
    found: Sequence[Found], narrow: Mapping[str, Found], dead: Mapping[str, tuple[int, dict[str, int]]],
    expression: Expressions,
) -> JsonObject:  # fmt: skip
    parts: dict[str, dict[str, dict[str, object]]] = {}
    for one in found:
        part = parts.setdefault(one.role, {"role": one.role, "stacks": {}, "layers": {}})  # type: ignore[dict-item]
        unread, more = dead[one.path]
        stack = one.path.rpartition(".")[2] if one.n is None or one.role not in (VISION, LANGUAGE) else "blocks"
        blocks = {} if one.n is None else {"blocks": expression.depth([one.n, narrow[one.path].n or 1], one.role)}
        part["stacks"][stack] = {"path": one.path, **blocks, **({"unread": unread} if unread else {})}
        for name, layer in one.layers.items():
            small = narrow[one.path].layers[name].shape
            shape = [expression(list(both), one.role) for both in zip(layer.shape, small, strict=True)]
            entry = {"shape": shape, **({} if layer.bias else {"bias": False})}
            entry |= {"unread": more[name]} if name in more else {}
            _add(part["layers"], str(layer.kind), name, entry, stack)
    return {role: _short(parts[role]) for role in ROLES if role in parts}


def _add(layers: dict[str, object], kind: str, name: str, entry: dict[str, object], stack: str) -> None:
    """A layer of one stack of a part; several stacks may have layers of one name and form."""
    own = layers.setdefault(kind, {})
    assert isinstance(own, dict)
    before = own.get(name)
    if before is None:
        own[name] = {**entry, "stacks": [stack]}
    elif {k: v for k, v in before.items() if k != "stacks"} == entry:
        before["stacks"].append(stack)
    else:
        raise NotProven(f"two lists of a part have different layers {name}")


def _short(part: dict[str, dict[str, object]]) -> JsonObject:
    """A part whose layers name their stacks only where the part has others."""
    for entries in part["layers"].values():
        for entry in cast("dict[str, dict[str, object]]", entries).values():
            if set(cast("list[str]", entry["stacks"])) == set(part["stacks"]):
                del entry["stacks"]
    return {**part}


def _config(config: JsonObject, parts: JsonObject) -> JsonObject:
    """The fields that sizes name, and those that tell one model from another."""
    used = {f for text in re.findall(r"[\w.]+", str(parts)) for f in factors(text) if field(f, config) is not None}
    sections = [name for name in ("text_config", "vision_config") if isinstance(config.get(name), Mapping)]
    names = [*ALWAYS, *(f"{section}.{key}" for section in sections for key in NAMED), *sorted(used)]
    values = {name: field(name, config) for name in dict.fromkeys(names)}
    return nested({k: v for k, v in values.items() if v is not None and not isinstance(v, Mapping)})


def _tied(model: PreTrainedModel) -> list[list[str]]:
    """Groups of parameter names that are one tensor."""
    groups: dict[str, list[str]] = {}
    for copy, source in (getattr(model, "all_tied_weights_keys", None) or {}).items():
        groups.setdefault(source, [source]).append(copy)
    return list(groups.values())
