"""The section `recover` of the config -> the spec of its layers, and the config keys that determined it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple, cast

from blip2sweep.compression.recover import DEFAULTS, DISTILL, LOSSES, METHODS, OF_DISTILLATION
from blip2sweep.compression.recover.spec import Recovery
from blip2sweep.errors import UserError, UserErrors, nearest

MOST_PROCESSES = 64
# Of the section, what is no field of a spec: where the layers and the samples are.
ELSEWHERE = ("target", "n_samples", "split", "data_dir")
OF_ADAPTERS = ("rank", "alpha", "merge", "requantize")


class Chosen(NamedTuple):
    """spec: of every layer of the target. merge, requantize: as asked. used: the config keys that determined it."""

    spec: Recovery
    merge: bool | None
    requantize: bool
    used: frozenset[str]


def chosen(section: Mapping[str, object], where: str = "recover") -> Chosen | None:
    """What a section means; None where it names no method. where: its config key.

    An option that the method or the loss does not use is not among the used keys, and not in the spec. Raises UserError
    for everything that is wrong, one line each.
    """
    given = {k: v for k, v in section.items() if v is not None}
    if str(given.get("method", "none")) == "none":
        return None
    return _chosen(json.dumps(given, sort_keys=True, default=str), where)


@lru_cache(maxsize=4096)
def _chosen(text: str, where: str) -> Chosen:
    given = cast("dict[str, object]", json.loads(text))
    _tell(_mistakes(given, where))
    method = str(given["method"])
    known = {**DEFAULTS[method], **(OF_DISTILLATION if given.get("loss") == DISTILL else {})}
    values = {k: given.get(k, default) for k, default in known.items()}
    if "rank" in known:
        values["alpha"] = given.get("alpha", 2 * cast("int", values["rank"]))
    _tell(_split_unevenly(values, where))
    typed = {k: float(cast("float", v)) if k in _FRACTIONS else v for k, v in values.items()}
    asked = {"method", *values, *ELSEWHERE, *(OF_ADAPTERS if "rank" in known else ())} - {"requantize"}
    used = {where, *(f"{where}.{k}" for k in asked & given.keys())}
    merge = cast("bool | None", given.get("merge")) if "rank" in known else None
    spec = Recovery(method=method, **typed)  # type: ignore[arg-type]  # the values are checked above
    return Chosen(spec, merge, bool(given.get("requantize")), frozenset(used))


def _tell(mistakes: Iterator[str]) -> None:
    lines = list(mistakes)
    if lines:
        raise UserErrors(lines) if len(lines) > 1 else UserError(lines[0])


def _mistakes(given: Mapping[str, object], where: str) -> Iterator[str]:
    known = {"method", *_VALUES, *ELSEWHERE, "merge", "requantize"}
    for name in given.keys() - known:
        yield f"{where}.{name}: unknown option; {nearest(str(name), known)}"
    if given["method"] not in METHODS:
        yield f"{where}.method={given['method']}: unknown method; {nearest(str(given['method']), METHODS)}"
    for name, (wanted, right) in _VALUES.items():
        if name in given and not right(given[name]):
            yield f"{where}.{name}={given[name]}: right: {wanted}"
    if given.get("requantize") is True and given.get("merge") is False:
        yield f"{where}.requantize=true: adapters that are not merged cannot be quantized; right: {where}.merge=null"


def _split_unevenly(values: Mapping[str, object], where: str) -> Iterator[str]:
    size, count = cast("int", values["batch_size"]), cast("int", values["processes"])
    if size % count:
        yield f"{where}.batch_size={size}: {count} processes share it equally; right: a multiple of {count}"


def _whole(low: int, high: int = 2**31) -> Callable[[object], bool]:
    return lambda x: isinstance(x, int) and not isinstance(x, bool) and low <= x < high


def _number(above: float, most: float) -> Callable[[object], bool]:
    return lambda x: isinstance(x, int | float) and not isinstance(x, bool) and above < x <= most


def _boolean(x: object) -> bool:
    return isinstance(x, bool)


_FRACTIONS = ("learning_rate", "holdout", "alpha", "temperature", "distill_weight")
_VALUES: dict[str, tuple[str, Callable[[object], bool]]] = {
    "loss": (" or ".join(LOSSES), lambda x: x in LOSSES),
    "steps": ("an integer from 1 up", _whole(1)),
    "batch_size": ("an integer from 1 up", _whole(1)),
    "seed": ("an integer from 0 up", _whole(0)),
    "n_samples": ("an integer from 1 up, or null for all", _whole(1)),
    "rank": ("an integer from 1 up", _whole(1)),
    "processes": (f"an integer from 1 to {MOST_PROCESSES}", _whole(1, MOST_PROCESSES + 1)),
    "learning_rate": ("a number above 0 and at most 1, such as 0.002", _number(0, 1)),
    "alpha": ("a number above 0, such as 16", _number(0, 1e6)),
    "temperature": ("a number above 0, such as 2", _number(0, 1e3)),
    "distill_weight": ("a number above 0 and at most 1, such as 0.5", _number(0, 1)),
    "holdout": ("a number from 0 to 0.5, such as 0.125", lambda x: x == 0 or _number(0, 0.5)(x)),
    "merge": ("true or false", _boolean),
    "requantize": ("true or false", _boolean),
}
