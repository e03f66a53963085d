"""config.json of a folder with all that transformers fills in, and the classes that models of conf/model are loaded as.

`python -m blip2sweep.models.written_out` answers a question on stdin, which `blip2sweep.models.own_config` writes. So
planning itself imports no torch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.utils import logging

from blip2sweep import outside
from blip2sweep.errors import UserError
from blip2sweep.machine.garbage import seldom
from blip2sweep.models.architecture import implementation
from blip2sweep.models.checkpoints import reply
from blip2sweep.models.config_file import NOT_LOADED, first_line, read_object
from blip2sweep.wire.pack import JsonObject

if TYPE_CHECKING:
    from blip2sweep.wire.model_section import ModelSection

PLAIN = (bool, int, float, str, list, type(None))


def written_out(config: PreTrainedConfig) -> JsonObject:
    """The fields of a config and of those inside it, also by the other names that it gives them."""
    names = [*vars(config), *config.attribute_map]
    values = {n: getattr(config, n, None) for n in names if not n.startswith("_")}
    own = {n: v for n, v in values.items() if isinstance(v, PLAIN)}
    inner = {n: written_out(v) for n, v in values.items() if isinstance(v, PreTrainedConfig)}
    dtype = str(config.dtype).removeprefix("torch.") if getattr(config, "dtype", None) is not None else None
    return {**own, **inner, "dtype": dtype, "model_type": config.model_type}


def answer(folder: Path, models: Mapping[str, ModelSection]) -> JsonObject:
    """{config, classes: {model: name of its class}}, or {mistakes}."""
    data, wrong = read_object(folder / "config.json")
    if data is None:
        return {"mistakes": wrong}
    try:
        cls = CONFIG_MAPPING[str(data.get("model_type"))]
        config = written_out(cls.from_dict({k: v for k, v in data.items() if k not in NOT_LOADED}))
    except Exception as error:  # anybody may have written the file, so transformers may raise anything
        return {"mistakes": [f"config.json: transformers cannot read it ({first_line(error)})"]}
    return {"config": config, "classes": {name: _class(model) for name, model in models.items()}}


def _class(model: ModelSection) -> str | None:
    try:
        return implementation(model).model_class.__name__
    except UserError:
        return None


def main() -> None:
    logging.set_verbosity(logging.CRITICAL)
    question = json.load(sys.stdin)
    outside.take(question.get("outside") or {})
    reply(answer(Path(question["folder"]), cast("Mapping[str, ModelSection]", question["models"])))


if __name__ == "__main__":
    seldom()
    main()
