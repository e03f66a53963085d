"""config.json and generation_config.json of a checkpoint, compared with conf/model. All mistakes at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from blip2sweep.models.architecture import Implementation, architecture, implementation
from blip2sweep.models.checkpoints import quantization, shown
from blip2sweep.models.checkpoints.headers import is_file
from blip2sweep.wire.model_section import ModelSection

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# Fields that make transformers load other files, or compute something else, than the folder's weights say.
REDIRECTS = ("transformers_weights", "fusion_config")
NOT_LOADED = ("quantization_config", *REDIRECTS)  # refused by a sentence of their own


def read_config(folder: Path, model_config: ModelSection) -> tuple[PreTrainedConfig | None, list[str]]:
    """(config, mistakes). The config is None where transformers cannot read it."""
    data, wrong = read_object(folder / "config.json")
    if data is None:
        return None, wrong
    model_type = architecture(model_config).MODEL_TYPE or str(model_config["config"].get("model_type"))
    own = implementation(model_config)
    already = quantization(data)
    if already:
        wrong.append(f"already quantized (config.json says {already}), so its widths would not be the table's")
    wrong += [
        f"config.json: {name} is set, so that something else than these weights would run"
        for name in REDIRECTS
        if data.get(name)
    ]
    if data.get("auto_map"):
        wrong.append("config.json: auto_map names code of the folder's own (trust_remote_code), which is never run")
    if data.get("model_type") != model_type:
        return None, [*wrong, f"config.json: model_type is {shown(data.get('model_type'))}, not {model_type}"]
    try:
        found = own.config_class.from_dict({k: v for k, v in data.items() if k not in NOT_LOADED})
    except Exception as error:  # anybody may have written the file, so transformers may raise anything
        return None, [*wrong, f"config.json: transformers cannot read it ({first_line(error)})"]
    return found, [*wrong, *config_mistakes(model_config, found), *_of_its_own(own, found)]


def read_object(path: Path) -> tuple[dict[str, object] | None, list[str]]:
    """(the JSON object in a file, mistakes)."""
    try:
        if not is_file(path):  # a pipe would block
            return None, [f"{path.name} is missing"]
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        return None, [f"{path.name}: cannot be read ({first_line(error)})"]
    if not isinstance(data, dict):
        return None, [f"{path.name}: is a JSON {type(data).__name__} and no object"]
    return data, []


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shown(f"{type(error).__name__}: {' '.join(lines)[:200]}" if lines else type(error).__name__)


def config_mistakes(model_config: ModelSection, found: PreTrainedConfig) -> list[str]:
    """The fields of conf/model in which config.json differs.

    Both are compared as transformers reads them, because it turns T5's `tie_word_embeddings: false` into another field.
    """
    try:
        expected = implementation(model_config).config_class(**model_config["config"])
    except Exception as error:  # a user's own YAML
        return [f"conf/model/{model_config['name']}.yaml: transformers cannot read its config ({first_line(error)})"]
    where = f"conf/model/{model_config['name']}.yaml"
    return [
        f"{field} is {shown(have)} in config.json, {shown(want)} in {where}"
        for field, have, want in _differing("", model_config["config"], expected, found)
    ]


def _differing(
    prefix: str, named: Mapping[str, object], expected: object, found: object
) -> Iterator[tuple[str, object, object]]:
    for field, value in named.items():
        want, have = getattr(expected, field, None), _value(field, found)
        if isinstance(value, Mapping):
            yield from _differing(f"{prefix}{field}.", value, want, have)
        elif have != want:
            yield f"{prefix}{field}", have, want


def _value(field: str, config: object) -> object:
    """The value of a field; of a width of heads that a class has no field for, what its model makes of the others."""
    found = getattr(config, field, None)
    if found is None and field == "head_dim":
        width, heads = getattr(config, "hidden_size", None), getattr(config, "num_attention_heads", None)
        return width // heads if isinstance(width, int) and isinstance(heads, int) else None
    return found


def _of_its_own(own: Implementation, config: PreTrainedConfig) -> Iterator[str]:
    """The mistakes inside config.json, whatever conf/model says."""
    yield from own.config_mistakes(config)
    text = config.get_text_config()
    yield from _tokens("config.json: " if text is config else "config.json: text_config.", text, text.vocab_size)


def generation_mistakes(folder: Path, config: PreTrainedConfig) -> list[str]:
    """The mistakes of generation_config.json, where there is one, and whether any file says what ends a text."""
    path, text = folder / "generation_config.json", config.get_text_config()
    data, wrong = read_object(path) if path.is_file() else ({}, [])
    # A model without a language model of transformers ends its texts itself.
    if data is not None and text is not config and not end_tokens(data, config, text):
        wrong.append(
            "neither generation_config.json nor config.json has an eos_token_id, so nothing would end a text (right: "
            "the number of the token that ends one, in generation_config.json)"
        )
    return wrong + list(_tokens("generation_config.json: ", data or {}, text.vocab_size))


def end_tokens(*sections: object) -> list[int]:
    """`eos_token_id` of the first section that has one."""
    found = (_tokens_of(section, "eos_token_id") for section in sections)
    return next(filter(None, found), [])


def _tokens_of(section: object, name: str) -> list[int]:
    value = section.get(name) if isinstance(section, dict) else getattr(section, name, None)
    return value if isinstance(value, list) else [] if value is None else [value]


def _tokens(where: str, section: object, rows: int) -> Iterator[str]:
    """Special tokens beyond the `rows` of the embedding."""
    for name in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"):
        for token in _tokens_of(section, name):
            if type(token) is not int or not 0 <= token < rows:
                yield f"{where}{name} is {shown(token)}, the vocabulary has {rows} tokens"
