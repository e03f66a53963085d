"""The uncompressed model beside a compressed one. Both have one set of tensors: what compression exchanges, the other keeps."""

from __future__ import annotations

import copy
from dataclasses import replace

from torch import nn

from blip2sweep.models.architecture import implementation
from blip2sweep.models.load import Loaded
from blip2sweep.wire.model_section import ModelSection


def teacher_of(loaded: Loaded, section: ModelSection) -> Loaded:
    """The model as it is now: it has to be as loaded. No tensor is copied.

    section: the composed `model` section.
    """
    shared: dict[int, object] = {}
    for x in loaded.model.parameters():
        shared[id(x)] = nn.Parameter(x.data, requires_grad=False)
    for buffer in loaded.model.buffers():
        shared[id(buffer)] = buffer
    model, own = copy.deepcopy(loaded.model, shared), implementation(section)
    stages = own.image_stages(model, loaded.device)
    return replace(loaded, model=model, images=stages, language=own.language(model, loaded.processor, loaded.family))
