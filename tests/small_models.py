"""A small random checkpoint of every model of conf/model, by its name."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from blip2sweep.models.shipped import model_config
from tests import image_text
from tests.checkpoints import TINY, conf, t5_config, tiny_config, write_t5
from tests.miniatures import (
    blip_config,
    instructblip_config,
    retrieval_config,
    write_blip,
    write_instructblip,
    write_retrieval,
)

RETRIEVAL = "blip2-itm-vit-g"  # writes no text
Small = tuple[Mapping[str, Any], Callable[[Path], object]]


def small(name: str) -> Small:
    """The `model` section of a model with small sizes, and what writes its checkpoint."""
    if name.startswith(RETRIEVAL):
        return retrieval_config(), write_retrieval
    if name in image_text.SMALL:
        return image_text.small_config(name), partial(image_text.write, name)
    if name.startswith("instructblip"):
        family = str(model_config(name)["family"])
        return instructblip_config(family), partial(write_instructblip, family=family)
    if name.startswith("blip-"):
        like = name.replace("large", "base")
        return blip_config(like), partial(write_blip, name=like)
    if "t5" in name:
        return t5_config(), write_t5
    own = {"config": tiny_config()["config"], "dtype": "float32", "hub_id": None}
    return {**conf(f"model/{name}"), **own}, partial(shutil.copytree, TINY, dirs_exist_ok=True)
