"""Writes a checkpoint of compressed-tensors: packed integers of the quantized layers, all else as it is stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from blip2sweep.compression.quantize.codes import Codes, dequantize
from blip2sweep.exporting import Written, readme, vllm
from blip2sweep.exporting.layout import Layout, dtypes_of, laid_out
from blip2sweep.exporting.layout import write as write_layout
from blip2sweep.exporting.loader import LOADER
from blip2sweep.exporting.made import Made


class Group(NamedTuple):
    """How the layers of one group are stored."""

    bits: int
    symmetric: bool
    strategy: str
    group_size: int | None

    def as_config(self, targets: Iterable[str]) -> dict[str, object]:
        """A group of `config_groups`. targets: names or `re:` patterns of its layers."""
        weights = {
            "num_bits": self.bits, "type": "int", "symmetric": self.symmetric, "strategy": self.strategy,
            "group_size": self.group_size, "dynamic": False,
        }  # fmt: skip
        return {"targets": list(targets), "weights": weights, "input_activations": None, "output_activations": None}


def group_of(codes: Codes) -> Group:
    """The group of a layer."""
    strategy = "group" if codes.group_size else "channel"
    return Group(codes.bits, codes.zero_point is None, strategy, codes.group_size)


def packed(codes: Codes) -> dict[str, Tensor]:
    """{name: tensor} of one layer as compressed-tensors stores it.

    A tensor's one scale is repeated for each row.
    """
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    shift, rows = 2 ** (codes.bits - 1), len(codes.values)
    found = {
        "weight_packed": pack_to_int32((codes.values.cpu().int() - shift).to(torch.int8), codes.bits),
        "weight_scale": _by_row(codes.scale, rows),
        "weight_shape": torch.tensor(codes.values.shape),
    }
    if codes.zero_point is not None:
        zero = (_by_row(codes.zero_point, rows).int() - shift).to(torch.int8)
        found["weight_zero_point"] = pack_to_int32(zero, codes.bits, packed_dim=0)
    return found


def _by_row(x: Tensor, rows: int) -> Tensor:
    return x.cpu().expand(rows, -1).contiguous()


def write_packed(made: Made, folder: Path, for_vllm: bool) -> Written:
    """Write a model, its loader and its README."""
    rename = vllm.published(made.job["model"]) if for_vllm else str
    with laid_out(made, rename) as layout:
        check(layout)
        state = layout.dense()
        for path, codes in layout.codes.items():
            state |= {f"{path}.{name}": x for name, x in packed(codes).items()}
        config = quantization_config(layout, vllm.patterns(made.job["model"]) if for_vllm else {})
        payload = write_layout(made, layout, state, config, folder)
        exact = len({group_of(c) for c in layout.codes.values()}) == 1 and _as_wide(layout)
        (folder / "load.py").write_text(LOADER.format(dtypes=dtypes_of(made)))
        (folder / "README.md").write_text(readme.of_packed(made, exact, layout.rounded(), for_vllm))
    around = sum(p.stat().st_size for p in folder.iterdir()) - payload
    return Written(payload, around, () if exact else ("load.py loads it to the very weights of the cell",))


def check(layout: Layout) -> None:
    """Raise RuntimeError where a layer's codes are not its weight."""
    for path, codes in layout.codes.items():
        weight = layout.model.get_submodule(path).weight
        assert isinstance(weight, Tensor)
        if not torch.equal(dequantize(codes).to(weight.dtype), weight):
            raise RuntimeError(f"{path}: its codes are not its weight")


def _as_wide(layout: Layout) -> bool:
    """Whether scales have the dtype of the weights: transformers multiplies codes in the dtype of the scales."""
    pairs = ((c.scale.dtype, layout.model.get_submodule(path).weight) for path, c in layout.codes.items())
    return all(isinstance(w, Tensor) and dtype == w.dtype for dtype, w in pairs)


def quantization_config(layout: Layout, patterns: Mapping[str, str]) -> dict[str, object]:
    """`quantization_config` of config.json.

    dequantize: transformers 5 cannot run packed layers of a model that generates by its submodules. With it, and without
    an argument, `from_pretrained` makes dense weights; vLLM does not read it. patterns: {beginning of a name: what vLLM
    has in its place}.
    """
    members: dict[Group, list[str]] = {}
    for path, codes in layout.codes.items():
        members.setdefault(group_of(codes), []).append(layout.name(path))
    groups = {
        f"group_{i}": g.as_config([*names, *_as_patterns(names, patterns)])
        for i, (g, names) in enumerate(members.items())
    }
    ignored = layout.dense_layers()
    return {
        "quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed",
        "config_groups": groups, "ignore": [*ignored, *_as_patterns(ignored, patterns)], "kv_cache_scheme": None,
        "global_compression_ratio": None, "dequantize": True,
    }  # fmt: skip


def _as_patterns(names: Iterable[str], patterns: Mapping[str, str]) -> Iterator[str]:
    """Patterns for the layers whose name vLLM has otherwise."""
    for name in names:
        for begins, other in patterns.items():
            if name.startswith(begins):
                yield f"re:{other}{name.removeprefix(begins).replace('.', chr(92) + '.')}$"
