"""Options of the config (`quant`, `per_part`, `rules`) -> the scheme that they mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from blip2sweep import outside
from blip2sweep.compression.quantize import KNOWN_OPTIONS, METHODS, Method
from blip2sweep.compression.quantize.kernels import resolve_packed
from blip2sweep.compression.quantize.scheme import Activations, Scheme, Weights
from blip2sweep.errors import MissingExtra, UserError, nearest

INPUT = ("input.bits", "input.strategy", "input.symmetric", "input.dynamic")
OPTIONS = (
    "method", "bits", "strategy", *KNOWN_OPTIONS, "packed", *INPUT,
)  # fmt: skip


class Option(NamedTuple):
    """One value and the config key that set it, such as `per_part.vision.bits`."""

    name: str
    value: object
    origin: str


Options = tuple[Option, ...]


class Resolved(NamedTuple):
    """A scheme and the config keys that determined it. The scheme is None where the layer is left alone."""

    scheme: Scheme | None
    used: frozenset[str]


def options_of(values: Mapping[str, object], prefix: str, known: Sequence[str] = OPTIONS) -> Options:
    """The options of one section that are not null. Those of its section `input` are named `input.bits` and so on.

    prefix: the config key of the section. known: the names that it may have. Raises UserError for any other name.
    """
    flat = dict(_flat(values))
    for name in flat:
        if name not in known:
            raise UserError(f"{prefix}.{name}: unknown option; {nearest(str(name), known)}")
    return tuple(Option(k, v, f"{prefix}.{k}") for k, v in flat.items() if v is not None)


def _flat(values: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", v) for inner, v in value.items())
        else:
            yield str(name), value


def merged(*layers: Options) -> Options:
    """The options of all layers; of two with one name the later one."""
    return tuple({k.name: k for layer in layers for k in layer}.values())


@lru_cache(maxsize=4096)
def resolve_options(options: Options, runs: bool = True) -> Resolved:
    """The scheme that these options mean, and the keys of those that determined it.

    An option that the method or its strategy does not use is dropped, and its key is not among the used ones. `bits=none`
    means left alone, and so does 16 where the method has no width of 16 bits. runs: the cell is computed here, so the
    method's library must be installed. Raises UserError naming the key that is wrong.
    """
    given = {k.name: k for k in options}
    method = _method(given)
    bits = _bits(given.get("bits"))
    if bits is None or (bits == 16 and not method.has_bits(16)):
        return Resolved(None, _origins(given, ("method", "bits")))
    strategy = _strategy(given.get("strategy"), method)
    if not method.has_bits(bits):
        raise UserError(
            f"{_name(given['bits'])}: {method.name} has no such width; right: {_widths(method.bits)} or none"
        )
    extra = {k: _extra(given.get(k), k, default) for k, default in method.options.items() if _takes(strategy, k)}
    _check_order(given, extra)
    determining = tuple(extra)
    if method.searches and searches_nothing(extra):
        determining = tuple(k for k in extra if k != "norm")
        method = METHODS[method.searches]
        extra = {k: v for k, v in extra.items() if k in method.options}
    inputs = resolve_input(given)
    _check_backend(given, method, inputs)
    packed = resolve_packed(given.get("packed"), method.name, bits, strategy, extra, inputs)
    names = ("method", "bits", "strategy", *determining, *used_inputs(given, inputs), *(["packed"] if packed else []))
    used = _origins(given, names)
    if runs:
        _check_extra(given, method, used)
    weights = Weights(method.name, bits, type=method.type, strategy=strategy, packed=packed, **extra)
    return Resolved(Scheme(weights, inputs), used)


def searches_nothing(extra: Mapping[str, object]) -> bool:
    """Whether the search of a method has one candidate, the range of all weights. It is then another method by name."""
    return extra.get("grid") == 1 and not extra.get("clip")


def _takes(strategy: str, option: str) -> bool:
    return option not in ("group_size", "static_groups") or strategy == "group"


def _check_order(given: Mapping[str, Option], extra: Mapping[str, object]) -> None:
    if extra.get("act_order") and extra.get("static_groups") is False:
        raise UserError(
            f"{_name(given['static_groups'])}: with act_order a group would hold columns from all over the row, which "
            f"no kernel reads; right: static_groups=true"
        )


def _check_extra(given: Mapping[str, Option], method: Method, used: frozenset[str]) -> None:
    if method.missing:
        option = given["method"]
        raise MissingExtra(
            f"{_name(option)}: needs {method.missing}, which is not installed; right: pip install "
            f"'blip2sweep[{method.missing}]'",
            used,
        )


def _check_backend(given: Mapping[str, Option], method: Method, inputs: Activations | None) -> None:
    """Raise UserError where a method of a back end is to have inputs that torch quantizes."""
    if method.backend and inputs is not None:
        raise UserError(
            f"{_name(given['input.bits'])}: {method.backend} computes the layers of {method.name}; right: leave it out"
        )


def _origins(given: Mapping[str, Option], names: Iterable[str]) -> frozenset[str]:
    return frozenset(given[n].origin for n in names if n in given)


def _name(option: Option) -> str:
    return f"{option.origin}={option.value}"


def _method(given: Mapping[str, Option]) -> Method:
    option = given.get("method")
    if option is None:
        raise UserError(f"quant.method is not set; right: one of {', '.join(sorted(METHODS))}")
    try:
        return METHODS[str(option.value)]
    except KeyError:
        known = [*METHODS, *outside.names("methods")]
        raise UserError(f"{_name(option)}: unknown method; {nearest(str(option.value), known)}") from None


def _bits(option: Option | None) -> int | None:
    """A width, or None for `none`."""
    if option is None or str(option.value).lower() == "none":
        return None
    if isinstance(option.value, bool) or not str(option.value).isdigit():
        raise UserError(f"{_name(option)}: not a bit width; right: an integer such as 4, or none")
    return int(str(option.value))


def _strategy(option: Option | None, method: Method) -> str:
    if option is None:
        return method.strategies[0]
    if option.value not in method.strategies:
        takes = " or ".join(method.strategies)
        right = f"right: {option.origin}={method.strategies[0]}, or another method"
        raise UserError(f"{_name(option)}: {method.name} takes {takes}; {right}")
    return str(option.value)


def _widths(bits: Iterable[int]) -> str:
    low = [b for b in bits if b <= 8]
    high = [str(b) for b in bits if b > 8]
    run = f"{low[0]}-{low[-1]}" if len(low) > 2 and low[-1] - low[0] == len(low) - 1 else ", ".join(map(str, low))
    return ", ".join([run, *high])


def _extra(option: Option | None, name: str, default: Any) -> Any:
    if option is None:
        return default
    wanted, right = VALUES[name]
    if not right(option.value):
        raise UserError(f"{_name(option)}: right: {wanted}")
    return float(str(option.value)) if isinstance(default, float) else option.value


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _number(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _boolean(value: object) -> bool:
    return isinstance(value, bool)


VALUES: dict[str, tuple[str, Callable[[object], bool]]] = {
    "group_size": ("a positive integer such as 128", _positive),
    "block_size": ("a positive integer such as 128", _positive),
    "grid": ("a positive integer such as 20", _positive),
    "damp": ("a number from 0 to 1 such as 0.01", lambda x: _number(x, 0, 1)),
    "norm": ("a number from 0.5 to 8 such as 2.4", lambda x: _number(x, 0.5, 8)),
    "alpha": ("a number from 0 to 1 such as 0.5", lambda x: _number(x, 0, 1)),
    **dict.fromkeys(("symmetric", "quantize_bias", "act_order", "static_groups", "clip"), ("true or false", _boolean)),
}


# ---- input activations


def resolve_input(given: Mapping[str, Option]) -> Activations | None:
    """The quantizer of a layer's inputs. None where `input.bits` is not set, `none` or 16."""
    bits = _bits(given.get("input.bits"))
    if bits is None or bits == 16:
        return None
    if bits not in range(2, 9):
        raise UserError(f"{_name(given['input.bits'])}: no such width of activations; right: 2-8 or none")
    strategy = given["input.strategy"].value if "input.strategy" in given else "token"
    if strategy not in ("token", "tensor"):
        raise UserError(f"{_name(given['input.strategy'])}: right: token or tensor")
    symmetric, dynamic = (_flag(given.get(f"input.{k}")) for k in ("symmetric", "dynamic"))
    if strategy == "token" and not dynamic:
        raise UserError(f"{_name(given['input.dynamic'])}: a token's range is its own; right: input.strategy=tensor")
    if strategy == "tensor" and dynamic:
        raise UserError(
            f"{_name(given['input.strategy'])}: with a dynamic range it would depend on which samples share a batch; "
            f"right: input.dynamic=false, or input.strategy=token"
        )
    return Activations(bits, strategy=strategy, symmetric=symmetric, dynamic=dynamic)


def _flag(option: Option | None) -> bool:
    return True if option is None else _extra(option, "symmetric", True)


def used_inputs(given: Mapping[str, Option], inputs: Activations | None) -> tuple[str, ...]:
    return INPUT if inputs else ("input.bits",) if "input.bits" in given else ()
