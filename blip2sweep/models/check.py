"""All that is wrong with a checkpoint, found without reading its weights. `python -m blip2sweep.models.check` answers a
question on stdin (`blip2sweep.checkpoints.verdict` asks it): planning itself stays without torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import Blip2Config
from transformers.utils import logging

from blip2sweep.anatomy import anatomy
from blip2sweep.checkpoints import ANSWER, Weights, inspect
from blip2sweep.errors import UserError
from blip2sweep.models.config_file import first_line, generation_mistakes, read_config, read_object
from blip2sweep.models.processor import read_processor
from blip2sweep.models.tensors import tensor_mistakes
from blip2sweep.models.tree import verify


def mistakes(weights: Weights, model_config: Mapping[str, Any]) -> list[str]:
    """Sentences; empty where the folder is exactly what `model_config` (name, config, parts, tied) describes."""
    folder = weights.folder
    config, wrong = read_config(folder, model_config)
    if config is None:
        return wrong
    wrong += generation_mistakes(folder, config)
    wrong += read_processor(folder, config)[1]
    return wrong + _of_tensors(weights, model_config)


def _of_tensors(weights: Weights, model_config: Mapping[str, Any]) -> list[str]:
    """The tensors against conf/model, which is also right where config.json is not: a wrong size is then told once."""
    data, _ = read_object(weights.folder / "config.json")
    wanted = _merged(data or {}, model_config["config"])
    tied = tuple(tuple(group) for group in model_config.get("tied") or ())
    try:
        config = Blip2Config.from_dict(wanted)
    except Exception as error:  # sizes of both that do not go together
        return [f"config.json and conf/model make no model together ({first_line(error)})"]
    untied = (wanted.get("text_config") or {}).get("tie_word_embeddings") is False
    wrong, model = tensor_mistakes(weights.tensors, config, untied, tied)
    if model is not None and not wrong:
        try:
            verify(model, anatomy(model_config))
        except UserError as error:
            wrong.append(str(error))
    return wrong


def _merged(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """config.json with conf/model's fields in place of its own, and without what would load other weights."""
    drop = ("quantization_config", "transformers_weights", "fusion_config")
    merged = {k: v for k, v in found.items() if k not in drop}
    for name, value in wanted.items():
        inner = merged.get(name)
        merged[name] = (
            _merged(inner if isinstance(inner, Mapping) else {}, value) if isinstance(value, Mapping) else value
        )
    return merged


def main() -> None:
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    asked = json.load(sys.stdin)
    model = asked["model"]
    found = mistakes(inspect(Path(asked["folder"]), model.get("tied") or ()), model)
    print(f"\n{ANSWER}{json.dumps(found)}", flush=True)


if __name__ == "__main__":
    main()
