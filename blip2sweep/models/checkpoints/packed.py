"""Layers whose weights are integers in a file: which tensors belong to one, and whether they have its shapes.

The tensors, for a layer of `out` rows and `in` columns with `groups` scales a row, codes of `b` bits packed without
gaps into int32 words, the lowest bits first:

gptq      qweight (in·b/32, out) along the rows, qzeros (groups, out·b/32), scales (groups, out), g_idx (in): the group
          of each column. In format gptq a zero point is stored less 1, in gptq_v2 as it is.
awq       qweight (in, out/8), qzeros (groups, out/8), scales (groups, out). The eight nibbles of a word are the columns
          0 2 4 6 1 3 5 7.
compressed-tensors
          weight_packed (out, in·b/32), weight_scale (out, groups), weight_zero_point (out·b/32, groups) where not
          symmetric, weight_shape (2). Codes and zero points are stored plus 2^(b-1). weight_g_idx (in) where columns are
          not in order. int- and naive-quantized: weight (out, in) of int8, and zero points of int8.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from blip2sweep.errors import UserError
from blip2sweep.models.checkpoints.headers import SHOWN, Tensor, shown
from blip2sweep.models.checkpoints.quantized import AWQ, COMPRESSED, Quantized, Scheme

Read = Callable[[str], bytes]
WORD = 32  # bits of a packed integer
FLOATING = ("F16", "BF16", "F32")
# The ends of the names of a layer's tensors; those behind the `|` may be absent.
ENDS = {
    "gptq": "qweight qzeros scales|g_idx",
    "awq": "qweight qzeros scales|",
    "pack-quantized": "weight_packed weight_scale weight_shape|weight_zero_point weight_g_idx",
    "int-quantized": "weight weight_scale|weight_zero_point weight_g_idx",
    "naive-quantized": "weight weight_scale|weight_zero_point weight_g_idx",
}  # fmt: skip


@dataclass(frozen=True)
class Packed:
    """A layer whose weight is integers. name: of its module in the files. tensors: {end of a name: tensor}."""

    name: str
    quantized: Quantized
    scheme: Scheme
    out_features: int
    in_features: int
    tensors: Mapping[str, Tensor]

    @property
    def weight(self) -> Tensor:
        """The tensor that a plain checkpoint would have, in the dtype of the scales. It has no place in a file."""
        return Tensor(self.tensors[self.scale_name].dtype, (self.out_features, self.in_features), 0, 0)

    @property
    def scale_name(self) -> str:
        return "weight_scale" if self.quantized.method == COMPRESSED else "scales"

    @property
    def groups(self) -> int:
        """The number of scales of a row."""
        return math.ceil(self.in_features / self.scheme.group_size) if self.scheme.group_size else 1

    @property
    def bits(self) -> int:
        """All that is stored for the weight."""
        return sum((t.end - t.start) * 8 for t in self.tensors.values())


def packed_layers(
    tensors: Mapping[str, Tensor], quantized: Quantized, folder: Path, read: Read
) -> dict[str, Packed]:  # fmt: skip
    """{module: its layer} of the layers that are integers. tensors: of the files, by name. read: the bytes of one.

    Raises UserError, one line with all mistakes, where tensors of a layer are missing or of another shape or dtype.
    """
    needed, optional = (e.split() for e in ENDS[_kind(quantized)].split("|"))
    first = f".{needed[0]}"
    names = sorted(n.removesuffix(first) for n, t in tensors.items() if n.endswith(first) and not _plain(t))
    found, wrong = dict[str, Packed](), list[str]()
    for name in names:
        own = {end: tensors[f"{name}.{end}"] for end in (*needed, *optional) if f"{name}.{end}" in tensors}
        if missing := [end for end in needed if end not in own]:
            wrong.append(f"{shown(name)} has no {', '.join(missing)}")
            continue
        layer = _layer(name, quantized, own, read)
        wrong += [f"{shown(name)}.{text}" for text in _mistakes(layer)]
        found[name] = layer
    if not names:
        wrong = [f"config.json says {quantized.method}, and no tensor is called ….{needed[0]} with integers"]
    if wrong:
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise UserError(
            f"{folder}: not a whole {quantized.method} checkpoint: {'; '.join(wrong[:SHOWN])}{more}; right: the folder as "
            f"it was saved"
        )
    return found


def plain_tensors(tensors: Mapping[str, Tensor], layers: Mapping[str, Packed]) -> dict[str, Tensor]:
    """The tensors as a plain checkpoint has them: each layer's integers as one weight."""
    inside = {f"{name}.{end}": f"{name}.weight" for name, x in layers.items() for end in x.tensors}
    weights = {f"{name}.weight": x.weight for name, x in layers.items()}
    return {**{n: t for n, t in tensors.items() if n not in inside}, **weights}


def _kind(quantized: Quantized) -> str:
    return quantized.format if quantized.method == COMPRESSED else quantized.method


def _plain(tensor: Tensor) -> bool:
    return tensor.dtype in FLOATING


def _layer(name: str, quantized: Quantized, own: Mapping[str, Tensor], read: Read) -> Packed:
    """A layer whose sizes are those of its codes; of packed rows, which may end within a word, those that the file says."""
    scheme, shape = quantized.scheme(name), next(iter(own.values())).shape
    rows, columns = (*shape, 0, 0)[:2]
    if quantized.format == "pack-quantized":
        sizes = _said(f"{name}.weight_shape", own["weight_shape"], read)
    elif quantized.method == COMPRESSED:
        sizes = rows, columns
    elif quantized.method == AWQ:
        sizes = columns * WORD // scheme.bits, rows
    else:
        indices = own["g_idx"].shape if "g_idx" in own else ()
        sizes = columns, indices[0] if indices else rows * WORD // scheme.bits
    return Packed(name, quantized, scheme, *sizes, own)


def _said(name: str, tensor: Tensor, read: Read) -> tuple[int, int]:
    """The two numbers of a `weight_shape`; zeros where it holds no two."""
    width = {"I64": 8, "I32": 4}.get(tensor.dtype, 0)
    data = read(name) if tensor.shape == (2,) and width else b""
    numbers = [int.from_bytes(data[i : i + width], "little", signed=True) for i in range(0, len(data), width or 1)]
    return (numbers[0], numbers[1]) if len(numbers) == 2 and min(numbers) >= 0 else (0, 0)


def _mistakes(x: Packed) -> Iterator[str]:
    for end, (dtypes, shapes) in _wanted(x).items():
        have = x.tensors.get(end)
        if have is None:
            if end == "weight_zero_point":
                yield f"{end} is missing, though it is not symmetric"
        elif have.dtype not in dtypes:
            yield f"{end} is {have.dtype}, not {' or '.join(dtypes)}"
        elif have.shape not in shapes:
            yield f"{end} is {have.shape}, not {' or '.join(map(str, shapes))}"


Wanted = Mapping[str, tuple[tuple[str, ...], list[tuple[int, ...]]]]  # {end of a name: (dtypes, shapes)}


def _wanted(x: Packed) -> Wanted:
    out, inputs, groups, bits = x.out_features, x.in_features, x.groups, x.scheme.bits
    if x.quantized.method == COMPRESSED:
        return _wanted_compressed(x)
    scales: Wanted = {"scales": (FLOATING, [(groups, out)])}
    if x.quantized.method == AWQ:
        return {**scales, "qweight": (("I32",), [(inputs, out // 8)]), "qzeros": (("I32",), [(groups, out // 8)])}
    return {
        **scales,
        "qweight": (("I32",), [(words(inputs, bits), out)]),
        "qzeros": (("I32",), [(groups, words(out, bits))]),
        "g_idx": (("I32", "I64"), [(inputs,)]),
    }


def _wanted_compressed(x: Packed) -> Wanted:
    out, inputs, groups, bits = x.out_features, x.in_features, x.groups, x.scheme.bits
    scale: list[tuple[int, ...]] = [(1,), (1, 1)] if x.scheme.strategy == "tensor" else [(out, groups)]
    zeros: Wanted = {"weight_zero_point": (("I8",), scale)}
    indices: Wanted = {"weight_g_idx": (("I32", "I64"), [(inputs,)]), "weight_scale": (FLOATING, scale)}
    if x.quantized.format != "pack-quantized":
        return {"weight": (("I8",), [(out, inputs)]), **indices, **({} if x.scheme.symmetric else zeros)}
    dense = [(words(out, bits), groups)]
    own: Wanted = {"weight_zero_point": (("I32", "I8"), [*dense, *scale])}
    return {
        "weight_packed": (("I32",), [(out, words(inputs, bits))]),
        "weight_shape": (("I64", "I32"), [(2,)]),
        **indices,
        **({} if x.scheme.symmetric else own),
    }


def words(n: int, bits: int) -> int:
    """How many int32 words hold n codes without gaps."""
    return math.ceil(n * bits / WORD)
