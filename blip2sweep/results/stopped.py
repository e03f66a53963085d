"""Results of cells that did not see all images: what they have, and for whom they are unfinished."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Literal, cast

from blip2sweep.wire.lines import ResultLine
from blip2sweep.wire.pack import Settings
from blip2sweep.wire.stopping import StopRequest


def images_of(result: ResultLine) -> float:
    """How many images a result has; infinity for one that has all."""
    stopped = result.get("stopped")
    return math.inf if stopped is None else stopped["images"]


def asked(settings: Settings, key: str) -> StopRequest | None:
    """What a sweep or a pack asks of a cell that may stop; None where it sees all images."""
    request = settings.get("stop")
    if not request or key not in request["images"]:
        return None
    return {**request, "margin": request.get("margins", {}).get(key, request["margin"])}


def is_unfinished(result: ResultLine | None, request: StopRequest | None) -> bool:
    """Whether a result stopped earlier than who asks for it would. request: None asks for all images. An imported one is
    all that there is of its cell."""
    stopped = result.get("stopped") if result else None
    if stopped is None or (result and result.get("imported")):
        return False
    if request is None or (request["stop"], request["margin"]) == (stopped["stop"], stopped["margin"]):
        return request is None
    from blip2sweep.metrics.stopping import Rule, is_stricter  # imports numpy, which `status` seldom needs

    had = Rule(cast("Literal['known', 'verdict']", stopped["stop"]), stopped["margin"])
    return is_stricter(Rule(request["stop"], request["margin"]), had, stopped["reason"])


def told(results: Iterable[ResultLine]) -> str:
    """`3 stopped, after 18 % of their images`; empty where none did."""
    found = [s for r in results if (s := r.get("stopped"))]
    if not found:
        return ""
    share = sum(s["images"] for s in found) / sum(s["of"] for s in found)
    return f"{len(found)} stopped, after {100 * share:.0f} % of their images"


def with_earlier(settings: Settings, earlier: Settings, keys: Collection[str]) -> Settings:
    """The settings of a further launch of a sweep, with what earlier launches asked of cells that may stop and that are
    not among its own. keys: of this launch."""
    now, before = settings.get("stop"), earlier.get("stop")
    left = {k: n for k, n in before["images"].items() if k not in keys} if before else {}
    if before is None or not left:
        return settings
    margins = {k: before.get("margins", {}).get(k, before["margin"]) for k in left}
    if now is None:
        return {**settings, "stop": {**before, "images": left, "margins": margins}}
    margins |= now.get("margins", {})
    return {**settings, "stop": {**now, "images": {**left, **now["images"]}, "margins": margins}}
