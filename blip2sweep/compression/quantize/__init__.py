"""What each method takes: widths, strategies and options. No torch here, so that planning can read it.

One file a method holds the arithmetic, one verb:
    codes(weight, weights, scale_dtype) -> Codes                    methods that see weights alone, and make integers of them
    apply(weight, bias, weights) -> (weight, bias)                  other methods that see weights alone
    calibrated(weight, weights, statistics) -> Result               methods that have seen the layer's inputs

A method of a back end (`Method.backend`) has no such file: the library of that back end rounds the layers of its graphs.

A method from outside is the same file with METHOD, its entry, in it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from types import ModuleType
from typing import Any, cast

from blip2sweep import outside
from blip2sweep.errors import UserError

LOW_BITS = tuple(range(1, 9))
UP_FROM_2 = tuple(range(2, 9))
CHANNEL_FIRST = ("channel", "tensor", "group")
# Of those that a method may take: each has its rules in `options.py` and its place in a scheme.
KNOWN_OPTIONS = (
    "group_size", "symmetric", "quantize_bias", "act_order", "static_groups", "damp", "block_size", "grid", "norm", "clip",
    "alpha",
)  # fmt: skip
BLOCK_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)  # of bitsandbytes


@dataclass(frozen=True)
class Method:
    """What one weight quantizer can do, and what it takes.

    bits: its widths. strategies: how many weights share a scale; the first is the default. options: its further options
    with their defaults. type: of its codes, `int` or `float`. calibrates: what it measures of the layer's inputs,
    `hessian` or `ranges`, or `graph` where a back end's library does it. extra: the extra that has its library. library:
    the module to import, where it is not called like the extra.

    scale_bits: of each scale, where its library or its arithmetic fixes them; None: those of the dtype in which the
    model is stored. zero_point_bits: with each scale; None: as many as a code has, and none when symmetric. number_zero:
    its zero point is a number instead, as wide as the scale. whole_bytes: whether the zero points of a row fill whole
    bytes. prescale: whether it stores a factor for each input.
    divides: whether a group must divide the row. row_sizes: the only group sizes that its library has.

    keeps_zeros: whether `calibrated` takes `kept`, the weights of a sparse layer that may differ from zero.

    by_rows: whether scaling a row of the weight scales the result, unless one scale serves the whole tensor. What reads
    the row's output may then divide its own scale into it. folds: whether it has such a scale, which the `folds` of the
    model's YAML can absorb. backend: the back end whose library rounds the layers, which torch leaves alone. shared_prescale:
    whether that stores a float32 factor for each input, once for the layers that read one tensor, and the inputs' range.
    unclipped: leaf names of layers whose `clip` it never searches; `clip: false` of the YAML
    adds others. searches: the method whose range it searches. It is that method where `grid` has one candidate and
    nothing is clipped. semantics: the number of the last change of its arithmetic (see blip2sweep/recipe/semantics.py).
    """

    name: str
    bits: tuple[int, ...]
    strategies: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    type: str = "int"
    calibrates: str | None = None
    extra: str | None = None
    library: str | None = None
    backend: str | None = None
    scale_bits: int | None = None
    zero_point_bits: int | None = None
    number_zero: bool = False
    whole_bytes: bool = False
    prescale: bool = False
    shared_prescale: bool = False
    divides: bool = False
    row_sizes: tuple[int, ...] = ()
    by_rows: bool = True
    folds: bool = False
    unclipped: tuple[str, ...] = ()
    searches: str | None = None
    semantics: int = 1
    keeps_zeros: bool = False

    def has_bits(self, bits: int) -> bool:
        return bits in self.bits

    @property
    def has_codes(self) -> bool:
        """Whether it hands out its integers (codes.py), with scales as the model stores them. Others give numbers alone."""
        return self.type == "int" and self.scale_bits is None and self.backend is None

    @property
    def missing(self) -> str | None:
        """The extra to install. None where its library is installed."""
        return self.extra if self.extra and not installed(self.library or self.extra) else None


@cache
def installed(library: str) -> bool:
    """Whether a library is installed. It is not imported."""
    return find_spec(library) is not None


# {library: packages of other names that hold the same module}
ALSO = {"onnxruntime": ("onnxruntime-gpu",)}


def version_of(library: str) -> str:
    """The version of a library, whatever its package is called. Raises PackageNotFoundError where none is installed."""
    for name in ALSO.get(library, ()):
        with contextlib.suppress(PackageNotFoundError):
            return version(name)
    return version(library)


# Clipping queries and keys hurts, as AWQ's authors found. That includes one layer for queries, keys and values.
QUERIES_AND_KEYS = ("q", "k", "q_proj", "k_proj", "query", "key", "qkv")

RTN = {"symmetric": False, "group_size": 128}
GPTQ = {"act_order": False, "static_groups": True, "damp": 0.01, "block_size": 128}
CODEBOOK: dict[str, Any] = {
    "options": {"group_size": 64}, "type": "float", "extra": "bitsandbytes", "scale_bits": 32, "zero_point_bits": 0,
    "divides": True, "row_sizes": BLOCK_SIZES,
}  # fmt: skip

OF_NNCF: dict[str, Any] = {
    "extra": "openvino", "library": "nncf", "backend": "openvino", "scale_bits": 16, "divides": True, "by_rows": False,
}  # fmt: skip
OF_ORT: dict[str, Any] = {
    "extra": "onnx", "library": "onnxruntime", "backend": "onnxruntime", "scale_bits": 32, "by_rows": False,
}  # fmt: skip
GROUP_FIRST, IN_GROUPS = ("group", "channel"), {"group_size": 128}
MEASURED_IN_GROUPS: dict[str, Any] = {"options": {"symmetric": False, **IN_GROUPS}, "calibrates": "graph", **OF_NNCF}


class Methods(dict[str, Method]):
    """Those of this package, by name. Looking up another name finds a method from outside, which is not one of the keys: its own
    version is in the keys of its cells. Raises KeyError where nobody has it, UserError where it is broken."""

    def __missing__(self, name: str) -> Method:
        found = outside.find("methods", name)
        if found is None:
            raise KeyError(name)
        return of_module(name, found)

    def known(self, name: str) -> Method:
        """Of a row: one whose code is not here has nothing that could be left out of what is said of it."""
        try:
            return self[name]
        except (KeyError, UserError):
            return Method(name, tuple(range(1, 17)), ("",), scale_bits=32)


def of_module(name: str, found: outside.OutsideModule) -> Method:
    """What a module from outside says of its method. Raises UserError where it lacks something."""
    method = getattr(found.having(("METHOD",)), "METHOD")  # noqa: B009
    if not isinstance(method, Method) or method.name != name:
        raise UserError(f"{found.where}: its METHOD is {method!r}; right: METHOD = Method({name!r}, bits, strategies)")
    if unknown := sorted(method.options.keys() - KNOWN_OPTIONS):
        raise UserError(
            f"{found.where}: METHOD has options {', '.join(unknown)}; right: among {', '.join(KNOWN_OPTIONS)}"
        )
    if method.folds or method.searches:
        raise UserError(
            f"{found.where}: METHOD has folds or searches, which are those of awq; right: a method with its own calibrated"
        )
    hands_out = hasattr(found.module, "codes")
    found.having(("calibrated",) if method.calibrates else ("codes" if hands_out else "apply",))
    known = hands_out or method.scale_bits is not None
    return method if known else replace(method, scale_bits=32)  # nobody rounds its scales


def arithmetic(method: str) -> ModuleType:
    """The module of a method, which imports torch. Raises UserError for one from outside that is not here."""
    if method in METHODS:
        return import_module(f"blip2sweep.compression.quantize.{method}")
    found = outside.find("methods", method)
    if found is None:
        raise UserError(f"method {method}: not here; right: the package or the file it came from")
    return cast("ModuleType", found.module)


METHODS = Methods({
    m.name: m
    for m in (
        # The published study's quantizer. 16 bits is a real quantizer here, not "left alone". Scale and minimum are float32.
        Method("minmax", (*LOW_BITS, 16), ("tensor",), {"quantize_bias": True}, scale_bits=32, number_zero=True),
        Method("rtn", LOW_BITS, CHANNEL_FIRST, RTN),
        Method("mse", LOW_BITS, CHANNEL_FIRST, RTN | {"grid": 100, "norm": 2.4}, searches="rtn"),
        Method("hqq", (1, 2, 3, 4, 5, 6, 8), ("channel", "group"), {"group_size": 64}, extra="hqq", number_zero=True, divides=True,
               by_rows=False),  # its solver shrinks errors by an absolute threshold
        Method("nf4", (4,), ("group",), **CODEBOOK),
        Method("fp4", (4,), ("group",), **CODEBOOK),
        Method("int8", (8,), ("channel",), extra="bitsandbytes", scale_bits=32, zero_point_bits=0),
        Method("float8", (8,), ("channel", "tensor"), type="float", extra="torchao", scale_bits=32, zero_point_bits=0),
        Method("gptq", UP_FROM_2, CHANNEL_FIRST, RTN | GPTQ, calibrates="hessian", semantics=2, keeps_zeros=True),
        Method("awq", UP_FROM_2, CHANNEL_FIRST, RTN | {"grid": 20, "clip": True}, calibrates="hessian", folds=True,
               unclipped=QUERIES_AND_KEYS, searches="rtn"),
        Method("awq_prescale", UP_FROM_2, CHANNEL_FIRST, RTN | {"grid": 20, "clip": False}, calibrates="hessian", prescale=True,
               searches="rtn"),
        Method("nncf_int8_sym", (8,), ("channel",), zero_point_bits=0, **OF_NNCF),
        Method("nncf_int8_asym", (8,), ("channel",), **OF_NNCF),
        Method("nncf_int4_sym", (4,), GROUP_FIRST, IN_GROUPS, zero_point_bits=0, **OF_NNCF),
        Method("nncf_int4_asym", (4,), GROUP_FIRST, IN_GROUPS, **OF_NNCF),
        Method("nncf_nf4", (4,), GROUP_FIRST, IN_GROUPS, type="float", zero_point_bits=0, **OF_NNCF),
        Method("nncf_awq", (4,), GROUP_FIRST, **MEASURED_IN_GROUPS),
        Method("nncf_awq_scale_estimation", (4,), GROUP_FIRST, **MEASURED_IN_GROUPS),
        Method("nncf_scale_estimation", (4,), GROUP_FIRST, **MEASURED_IN_GROUPS),
        Method("nncf_gptq", (4,), GROUP_FIRST, **MEASURED_IN_GROUPS),
        # W8A8: inputs of one range, SmoothQuant (alpha), fast bias correction.
        Method("nncf_ptq", (8,), ("channel",), {"alpha": 0.95}, calibrates="graph", zero_point_bits=0, shared_prescale=True,
               **OF_NNCF | {"scale_bits": 32}),
        # Inputs are int8 too, each in the range of its tensor when it comes. A zero point is stored though it is 0.
        Method("ort_int8", (8,), ("channel",), zero_point_bits=8, **OF_ORT),
        Method("ort_int4", (4,), ("group",), RTN, divides=True, row_sizes=(16, 32, 64, 128, 256), whole_bytes=True,
               **OF_ORT),
        Method("smoothquant", UP_FROM_2, CHANNEL_FIRST, RTN | {"symmetric": True, "alpha": 0.5}, calibrates="ranges", prescale=True),
    )
})  # fmt: skip
