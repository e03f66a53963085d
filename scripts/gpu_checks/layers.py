"""What is done to single layers: packed kernels and their latency, and GPTQ of one block."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch

from blip2sweep.apply.packed import packed_layers, split
from blip2sweep.backends.torch.latency import first_images, measured
from blip2sweep.errors import UserError
from blip2sweep.models.images import load_pixels
from blip2sweep.models.load import Loaded
from scripts.gpu_checks.running import Deadline, Found
from scripts.gpu_checks.subject import Subject

ROWS = 64  # of the input that a packed layer and the one it stands for get
PACKED: Mapping[str, Mapping[str, Any]] = {
    "int8": {"method": "rtn", "bits": 8, "symmetric": True},
    "int4": {"method": "rtn", "bits": 4, "symmetric": False, "strategy": "group", "group_size": 128},
    "float8": {"method": "float8", "bits": 8},
}
PART = {"part": "llm", "blocks": "all", "layers": "all", "per_part": {}, "rules": {}}


def packed(subject: Subject, found: Found, deadline: Deadline) -> None:
    """Bytes and latency of the model with its language model packed, beside the unpacked one. Each kernel stands alone:
    one that is not to be had here leaves its reason."""
    subject.free()
    data = first_images(subject.data)
    pixels = load_pixels(subject.loaded, data)
    found["plain"] = measured(subject.loaded, data, subject.generation, pixels)
    for name, quant in PACKED.items():
        if deadline.near:
            found[name] = {"skipped": "no time left"}
            continue
        try:
            recipe = split(subject.recipe({**PART, "quant": {**quant, "packed": subject.device}}))[1]
        except UserError as why:
            found[name] = {"skipped": str(why)}
            continue
        try:
            found[name] = own = Found()
            began, plain = subject.now(), _outputs(subject.loaded, recipe.schemes)
            with packed_layers(subject.loaded, recipe):
                own |= {"layers": len(recipe.schemes), "packed_in": subject.now() - began}
                own["output_error"] = _error(plain, _outputs(subject.loaded, recipe.schemes))
                own |= measured(subject.loaded, data, subject.generation, pixels)
            own["speed_batch_1"] = found["plain"]["seconds_batch_1"] / own["seconds_batch_1"]
            own["speed_batch_largest"] = found["plain"]["seconds_batch_largest"] / own["seconds_batch_largest"]
        except Exception as error:  # of a library or of its kernel: torchao asserts, and raises ValueError
            own["error"] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
    if failed := [name for name, own in found.items() if "error" in own]:
        found["error"] = f"{', '.join(failed)}: see there"


def _outputs(loaded: Loaded, paths: Mapping[str, object]) -> torch.Tensor:
    """What the first of the layers makes of random rows."""
    path = next(iter(paths))
    width = next(x.in_features for part in loaded.anatomy.parts.values() for x in part.linears if x.path == path)
    torch.manual_seed(0)
    with torch.inference_mode():
        x = torch.randn(ROWS, width, device=loaded.device, dtype=loaded.model.dtype)
        return loaded.model.get_submodule(path)(x).float()


def _error(plain: torch.Tensor, other: torch.Tensor) -> float:
    """The norm of what changed, relative to the output."""
    return float((other - plain).norm() / plain.norm())


def gptq(subject: Subject, samples: int, found: Found, deadline: Deadline) -> None:
    """One block of the language model at 4 bits in groups: seconds, and the errors of its layers' outputs on the samples.
    rtn's seconds beside it measure nothing and only round."""
    subject.free()
    group = 128 if subject.device == "cuda" else 32
    quant = {"bits": 4, "strategy": "group", "group_size": group}
    calibration = subject.samples(samples)
    for method in ("gptq", "rtn"):
        config = {**PART, "blocks": "0", "quant": {**quant, "method": method}}
        job = subject.job(config, calibration if method == "gptq" else None)
        began = subject.now()
        with warnings.catch_warnings():  # that there are few samples is no news
            warnings.simplefilter("ignore")
            subject.backend.quantized(job)
        found[method] = {"apply_seconds": subject.now() - began}
        assert subject.backend.state is not None
        infos = {path: dict(p.info) for path, p in subject.backend.state.measured.items()}
        if infos:
            found[method] |= {"layers": infos}
        subject.backend.state.patch.restore()
    found |= {"group_size": group, "samples": samples}
