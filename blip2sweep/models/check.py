"""All mistakes of a checkpoint, found without reading its weights.

`python -m blip2sweep.models.check` answers a question on stdin, which `blip2sweep.models.checkpoints.verdict` writes.
So planning itself imports no torch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from transformers.utils import logging

from blip2sweep import outside
from blip2sweep.errors import UserError
from blip2sweep.machine.garbage import seldom
from blip2sweep.models import unpack
from blip2sweep.models.anatomy import anatomy
from blip2sweep.models.architecture import implementation
from blip2sweep.models.checkpoints import Weights, inspect, reply
from blip2sweep.models.config_file import NOT_LOADED, first_line, generation_mistakes, read_config, read_object
from blip2sweep.models.tensors import tensor_mistakes
from blip2sweep.models.tree import verify
from blip2sweep.wire.model_section import ModelSection

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def mistakes(weights: Weights, model_config: ModelSection) -> list[str]:
    """Sentences; empty where the folder is exactly what `model_config` describes."""
    folder = weights.folder
    config, wrong = read_config(folder, model_config)
    data, _ = read_object(folder / "config.json")
    own = implementation(model_config)
    if data is not None:
        # A wrong size in config.json is one mistake. Everything else is compared with the sizes of conf/model.
        try:
            wanted = own.config_class.from_dict(_merged(data, model_config["config"]))
        except Exception as error:  # sizes of both that do not fit together
            wrong = wrong or [f"config.json and conf/model make no model together ({first_line(error)})"]
        else:
            wrong += generation_mistakes(folder, config or wanted)
            wrong += own.read_processor(folder, config or wanted)[1]
            wrong += _of_tensors(weights, wanted, model_config)
    return [mistake.replace(f"{folder}/", "").replace(str(folder), "the folder") for mistake in wrong]


def _of_tensors(weights: Weights, wanted: PreTrainedConfig, model_config: ModelSection) -> list[str]:
    wrong, model = tensor_mistakes(weights.tensors, wanted, model_config)
    wrong += unpack.mistakes(weights)
    if model is not None and not wrong:
        try:
            verify(model, anatomy(model_config))
        except UserError as error:
            wrong.append(str(error))
    return wrong


def _merged(found: Mapping[str, object], wanted: Mapping[str, object]) -> dict[str, object]:
    """config.json with the fields of conf/model in place of its own, without fields that would load other weights."""
    merged = {k: v for k, v in found.items() if k not in NOT_LOADED}
    for name, value in wanted.items():
        inner = merged.get(name)
        merged[name] = (
            _merged(inner if isinstance(inner, Mapping) else {}, value) if isinstance(value, Mapping) else value
        )
    return merged


def main() -> None:
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    question = json.load(sys.stdin)
    model = question["model"]
    outside.take(model.get("outside") or {})
    found = mistakes(inspect(Path(question["folder"]), model.get("tied") or ()), model)
    reply(found)


if __name__ == "__main__":
    seldom()
    main()
