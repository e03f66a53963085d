"""Recipe files: `targets: [{target: vision:all:all, method: rtn, bits: 4, …}, {step: drop_blocks, target: language:4-5}, …]`.

An entry without `step` is of quantization. The order of steps is fixed (see blip2sweep/compression/step.py), so that of the
entries only decides which of two wins that name one layer. Where quantization stands before and behind `recover`, the trained
layers are quantized again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import yaml

from blip2sweep.compression.step import QUANTIZE, RECOVER, STEPS
from blip2sweep.errors import UserError, nearest

MEASURED = ("calibration", "trained_on")  # digests of what was measured or trained on: made anew


class Listed(NamedTuple):
    """An entry. where: the file and index, for messages. options: without the target and what was measured. again: whether it
    is of the second quantization."""

    where: str
    kind: str
    target: str
    options: dict[str, object]
    again: bool = False


def read(path: str) -> list[Listed]:
    """The entries of a recipe file, in order. Raises UserError, one line, for a file that is no list of targets."""
    found = [_listed(f"{path}: targets[{i}]", entry) for i, entry in enumerate(_targets(path))]
    kinds = [e.kind for e in found]
    if RECOVER not in kinds or QUANTIZE not in kinds[: kinds.index(RECOVER)]:
        return found
    return [e._replace(again=e.kind == QUANTIZE and i > kinds.index(RECOVER)) for i, e in enumerate(found)]


def _listed(where: str, entry: object) -> Listed:
    if not isinstance(entry, Mapping) or "target" not in entry:
        raise UserError(f"{where}: no target; right: target: part:blocks:layers, method: …, bits: …")
    kind = str(entry.get("step", QUANTIZE))
    if kind not in STEPS:
        raise UserError(f"{where}: step {kind} has no place in a recipe file; right: steps.{kind}.target=… beside it")
    own = _unmeasured({k: v for k, v in entry.items() if k not in ("target", "step")})
    return Listed(where, kind, str(entry["target"]), own)


def _unmeasured(fields: Mapping[object, object]) -> dict[str, object]:
    """Fields without MEASURED, and so those inside them."""
    left = {str(k): v for k, v in fields.items() if k not in MEASURED}
    return {k: _unmeasured(v) if isinstance(v, Mapping) else v for k, v in left.items()}


def _targets(path: str) -> list[object]:
    try:
        data = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise UserError(
            f"recipe_file={path}: cannot be read ({error.strerror}); right: an existing YAML file"
        ) from error
    except yaml.YAMLError as error:
        raise UserError(f"recipe_file={path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(data, Mapping) or not isinstance(data.get("targets"), list):
        keys = ", ".join(map(str, data)) if isinstance(data, Mapping) else type(data).__name__
        raise UserError(f"recipe_file={path}: no list `targets` (found: {keys}); {nearest('targets', ['targets'])}")
    return data["targets"]
