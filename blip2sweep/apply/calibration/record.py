"""Figures of a calibration for the cell's row, and a warning where it saw few tokens."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from blip2sweep.compression.quantize.prepared import Prepared
from blip2sweep.compression.quantize.statistics import TOKENS_PER_INPUT, LayerInfo
from blip2sweep.wire.lines import Cost


def summary(prepared: Mapping[str, Prepared]) -> Cost:
    """The calibration columns of a row.

    They are the fewest tokens of a layer, the number of layers that saw fewer than 4 tokens for each input, the number
    with a deficient rank, the largest damping, and the mean relative output error. Norms alone, as Wanda's, have no
    rank and need no more tokens.
    """
    infos = [p.info for p in prepared.values()]
    if not infos:
        return {}
    errors, second = [i["error"] for i in infos if "error" in i], [i for i in infos if "rank" in i]
    return {
        "calibration_tokens": min(i["tokens"] for i in infos),
        "calibration_short": sum(short(i) for i in second),
        "calibration_deficient": sum(i["rank"] < i["inputs"] for i in second),
        "calibration_damp": max((i["damp"] for i in infos if "damp" in i), default=None),
        "layer_error": sum(errors) / len(errors) if errors else None,
    }


def layers(prepared: Mapping[str, Prepared]) -> dict[str, LayerInfo]:
    """{path: figures}."""
    return {path: p.info for path, p in prepared.items()}


def short(info: LayerInfo) -> bool:
    """Whether a layer saw too few tokens."""
    return bool(info["tokens"] < TOKENS_PER_INPUT * info["inputs"])


def warn_short(prepared: Mapping[str, Prepared]) -> None:
    """Warn once for all layers that saw fewer tokens than 4 times their inputs."""
    few = {path: p.info for path, p in prepared.items() if short(p.info)}
    if few:
        path, info = min(few.items(), key=lambda item: item[1]["tokens"] / item[1]["inputs"])
        warnings.warn(
            f"calibration: {len(few)} of {len(prepared)} layers saw fewer tokens than {TOKENS_PER_INPUT} times their "
            f"inputs, such as {info['tokens']} for the {info['inputs']} of {path}; right: a larger calibration.n_samples",
            stacklevel=2,
        )
