"""Finished blocks of calibrated layers, kept by content in memory and on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save, save_file
from torch import Tensor

from blip2sweep.cache.disk import Store
from blip2sweep.cache.tensors import Memo
from blip2sweep.compression.quantize.codes import Codes
from blip2sweep.compression.quantize.prepared import Prepared
from blip2sweep.compression.quantize.statistics import LayerInfo

FIELDS = ("weight", "prescale", "low", "high", "kept")
CODES = ("values", "scale", "zero_point", "prescale")


class StoredLayer(TypedDict):
    """A layer as JSON. fields: those of FIELDS that it has; their tensors are stored beside it.

    codes: of CODES, and bits and group_size: where it has codes.
    """

    key: str
    info: LayerInfo
    fields: list[str]
    codes: NotRequired[list[str]]
    bits: NotRequired[int]
    group_size: NotRequired[int | None]


class Blocks:
    """Finished blocks by key: in memory within its budget, and on disk where there is a store.

    made, found: how many were put and how many were found.
    """

    def __init__(self, memo: Memo, store: Store | None = None) -> None:
        self.memo, self.store = memo, store
        self._stored: dict[str, dict[str, StoredLayer]] = {}
        self.made = self.found = 0

    def get(self, key: str) -> dict[str, Prepared] | None:
        tensors = self.memo.get(key)
        if tensors is not None:
            found = _joined(self._stored[key], tensors)
        elif self.store is not None and (payload := self.store.get(key)) is not None:
            found = from_bytes(payload, self.memo.device)
            self._remember(key, found)
        else:
            return None
        self.found += 1
        return found

    def put(self, key: str, layers: Mapping[str, Prepared]) -> None:
        self.made += 1
        self._remember(key, layers)
        if self.store is not None:
            self.store.put(key, to_bytes(layers))

    def _remember(self, key: str, layers: Mapping[str, Prepared]) -> None:
        self._stored[key], tensors = _split(layers)
        self.memo.put(key, tensors)


def _split(layers: Mapping[str, Prepared]) -> tuple[dict[str, StoredLayer], tuple[Tensor, ...]]:
    """(the layers as JSON, the tensors of their fields in order)."""
    stored: dict[str, StoredLayer] = {}
    tensors: list[Tensor] = []
    for path, layer in layers.items():
        there = [f for f in FIELDS if getattr(layer, f) is not None]
        stored[path] = {"key": layer.key, "info": layer.info, "fields": there}
        tensors += [getattr(layer, f) for f in there]
        if layer.codes is not None:
            named = [f for f in CODES if getattr(layer.codes, f) is not None]
            tensors += [getattr(layer.codes, f) for f in named]
            stored[path] |= {"codes": named, "bits": layer.codes.bits, "group_size": layer.codes.group_size}
    return stored, tuple(tensors)


def _joined(stored: Mapping[str, StoredLayer], tensors: tuple[Tensor, ...]) -> dict[str, Prepared]:
    rest = iter(tensors)
    return {path: _layer(t, rest) for path, t in stored.items()}


def _layer(t: StoredLayer, rest: Iterator[Tensor]) -> Prepared:
    found = {"weight": None, **{f: next(rest) for f in t["fields"]}}
    codes = None
    if "codes" in t:
        there: dict[str, Tensor | None] = {"zero_point": None, **{f: next(rest) for f in t["codes"]}}
        codes = Codes(bits=t["bits"], group_size=t["group_size"], **there)  # type: ignore[arg-type]
    return Prepared(key=t["key"], info=t["info"], codes=codes, **found)


def to_bytes(layers: Mapping[str, Prepared]) -> bytes:
    """The length of a JSON header as 8 little-endian bytes, the header, and a safetensors file."""
    stored, tensors = _split(layers)
    head = json.dumps(stored).encode()
    return len(head).to_bytes(8, "little") + head + save(_named(tensors))


def _named(tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """Tensors by number. Layers may share a tensor; a file may not."""
    named: dict[str, Tensor] = {}
    stored_at: set[int] = set()
    for i, x in enumerate(tensors):
        held = x.detach().cpu().contiguous()
        place = held.untyped_storage().data_ptr()
        named[f"{i:06}"] = held.clone() if place in stored_at else held
        stored_at.add(place)
    return named


def from_bytes(payload: bytes, device: torch.device) -> dict[str, Prepared]:
    """The inverse of `to_bytes`. device: of the tensors."""
    size = int.from_bytes(payload[:8], "little")
    named = load(payload[8 + size :])
    return _joined(json.loads(payload[8 : 8 + size]), tuple(named[k].to(device) for k in sorted(named)))


def to_file(path: Path, layers: Mapping[str, Prepared]) -> None:
    """A safetensors file with the layers as JSON in its header. Raises OSError where the disk refuses."""
    stored, tensors = _split(layers)
    try:
        save_file(_named(tensors), path, metadata={"layers": json.dumps(stored)})
    except SafetensorError as error:
        raise OSError(f"{path}: cannot be written ({error})") from error


def from_file(path: Path, device: torch.device) -> dict[str, Prepared]:
    """The inverse of `to_file`. device: of the tensors."""
    with safe_open(path, framework="pt", device=str(device)) as file:
        tensors = tuple(file.get_tensor(name) for name in sorted(file.keys()))
        return _joined(json.loads(file.metadata()["layers"]), tensors)
