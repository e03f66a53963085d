"""Which (method, width, strategy) a library can run packed, and on which device: `quant.packed=true|cpu|cuda`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from blip2sweep.compression.quantize import installed
from blip2sweep.compression.quantize.scheme import Activations, Scheme
from blip2sweep.errors import UserError
from blip2sweep.models.part import Linear

if TYPE_CHECKING:
    from blip2sweep.compression.quantize.options import Option


class Kernel(NamedTuple):
    """One packed layer of a library.

    symmetric: None where the method has no such option. w8a8: whether it quantizes its input itself. group_sizes: those
    it has, each of which must divide the row. dtype: the only one it computes in; None where it has no limit.
    """

    library: str
    method: str
    bits: int
    strategy: str
    symmetric: bool | None
    devices: tuple[str, ...]
    group_sizes: tuple[int, ...] = ()
    w8a8: bool = False
    dtype: str | None = None


BOTH = ("cpu", "cuda")
KERNELS = (
    Kernel("torchao", "rtn", 8, "channel", True, BOTH),
    Kernel("torchao", "rtn", 8, "channel", True, BOTH, w8a8=True),
    Kernel("torchao", "rtn", 4, "group", False, ("cuda",), (32, 64, 128, 256), dtype="bfloat16"),
    Kernel("torchao", "float8", 8, "channel", None, BOTH),
    Kernel("bitsandbytes", "nf4", 4, "group", None, BOTH, (64, 128, 256, 512, 1024, 2048, 4096)),
    Kernel("bitsandbytes", "fp4", 4, "group", None, BOTH, (64, 128, 256, 512, 1024, 2048, 4096)),
    Kernel("bitsandbytes", "int8", 8, "channel", None, BOTH),
)
W8A8 = Activations(8)  # per token, symmetric, dynamic: what torchao's int8 kernel does with its input


def resolve_packed(
    option: Option | None,
    method: str,
    bits: int,
    strategy: str,
    extra: Mapping[str, object],
    inputs: Activations | None,
) -> str | None:
    """The kind of device whose kernel is to run, or None.

    Raises UserError where no library has such a kernel for that device.
    """
    if option is None or option.value in (False, "none"):
        return None
    typed = f"{option.origin}={option.value}"
    if option.value not in (True, *BOTH):
        raise UserError(f"{typed}: right: true, false, cpu or cuda")
    device = this_device() if option.value is True else str(option.value)
    found = find_kernel(method, bits, strategy, extra, inputs)
    if found is None or device not in found.devices:
        what = " ".join(filter(None, [method, str(bits), strategy, "symmetric" if extra.get("symmetric") else ""]))
        raise UserError(f"{typed}: no packed kernel for {what} on {device}; right: {_offer(device)}")
    if not installed(found.library):
        raise UserError(
            f"{typed}: needs {found.library}, which is not installed; right: pip install 'blip2sweep[{found.library}]'"
        )
    return device


def find_kernel(
    method: str, bits: int, strategy: str, options: Mapping[str, object], inputs: Activations | None
) -> Kernel | None:
    """The kernel that computes this, or None. A group of the row's length counts as `channel`."""
    wanted = (method, bits, strategy, options.get("symmetric"), inputs)
    for k in KERNELS:
        fits = wanted == (k.method, k.bits, k.strategy, k.symmetric, W8A8 if k.w8a8 else None)
        if fits and (not k.group_sizes or options.get("group_size") in k.group_sizes):
            return k
    return None


def groups_alone(method: str, bits: object) -> bool:
    """Whether a method has kernels of this width, all of them for groups."""
    return {k.strategy for k in KERNELS if (k.method, k.bits) == (method, bits)} == {"group"}


def kernel_of(scheme: Scheme) -> Kernel:
    """The kernel of a packed scheme.

    A group that became a channel, because it is as long as the row, has the group's kernel.
    """
    w = scheme.weights
    found = find_kernel(
        w.method,
        w.num_bits,
        w.strategy,
        {"symmetric": w.symmetric, "group_size": w.group_size},
        scheme.input_activations,
    )
    named = next((k for k in KERNELS if (k.method, k.bits) == (w.method, w.num_bits)), None)
    if found is None and (named is None or named.strategy != "group"):
        raise UserError(f"no packed kernel for {w}")
    kernel = found or named
    assert kernel is not None
    return kernel


def check_packed(part: str, layers: Iterable[tuple[Linear, Scheme]], dtype: str) -> None:
    """Compare the packed layers of a part with the model. dtype: the part's.

    Raises UserError for a layer that no kernel can run.
    """
    for x, scheme in layers:
        if scheme.weights.packed:
            _check_layer(part, x, scheme, dtype)


def _check_layer(part: str, x: Linear, scheme: Scheme, dtype: str) -> None:
    kernel, typed = kernel_of(scheme), f"quant.packed={scheme.weights.packed}"
    length = scheme.weights.group_size or x.in_features
    if kernel.group_sizes and (length not in kernel.group_sizes or x.in_features % length):
        raise UserError(
            f"{typed}: {kernel.library}'s {kernel.method} takes whole groups of {', '.join(map(str, kernel.group_sizes))}, "
            f"and {x.path} has rows of {x.in_features} in groups of {length}; right: a quant.group_size that divides them"
        )
    if kernel.dtype and dtype != kernel.dtype:
        raise UserError(
            f"{typed}: {kernel.library}'s {kernel.bits}-bit kernel computes in {kernel.dtype}, and {x.path} is {dtype}; "
            f"right: model.dtype={kernel.dtype}"
        )
    if kernel.method in x.unpackable:
        raise UserError(
            f"{typed}: the model casts the input of {x.path} to the type of its {kernel.bits}-bit codes; right: "
            f"keep={part}:all:{x.leaf}, or int8"
        )


def this_device() -> str:
    """`cuda` where there is an NVIDIA device. It is found without torch, which planning does not import."""
    return "cuda" if Path("/dev/nvidiactl").exists() else "cpu"


def _offer(device: str) -> str:
    offers = [
        f"{k.method} {k.bits} {k.strategy}{' symmetric' if k.symmetric else ''}{' with 8-bit input' if k.w8a8 else ''}"
        for k in KERNELS
        if device in k.devices
    ]
    return ", ".join(offers)
