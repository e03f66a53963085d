"""What a cell's evaluation takes from cells before it and leaves for those after it."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from safetensors.torch import load, save
from torch import Tensor

from blip2sweep.cache.disk import Store
from blip2sweep.cache.tensors import Memo
from blip2sweep.models.images import Features, preprocessing
from blip2sweep.models.load import Loaded
from blip2sweep.recipe.chain import Chain
from blip2sweep.rows import Id
from blip2sweep.tasks.sample import TaskData

T = TypeVar("T")
MOST_TEXTS = 2_000_000  # answers kept in memory: some hundred megabytes


def start(loaded: Loaded, task: TaskData, job: Mapping[str, Any], code: str) -> dict[str, Any]:
    """Everything but the recipe that determines image and query features: the start of a chain of keys.

    job: as `Cell.job()` gives it; code: semantics and versions of what computes.
    """
    return {
        "weights": job["columns"]["weights"], "images": task.content, "on_bad_image": job["task"]["on_bad_image"],
        "preprocessing": preprocessing(loaded), "dtypes": loaded.dtypes, "attention": loaded.attention,
        "device": loaded.device.type, "code": code,
    }  # fmt: skip


class AnswerCache(Generic[T]):
    """Lists of answers by key, the latest used kept, at most MOST_TEXTS answers.

    digests: of the query features that the chain's bridge keys stand for at present, which questions are keyed by.
    """

    def __init__(self) -> None:
        self._lists: OrderedDict[str, list[T]] = OrderedDict()
        self.digests: dict[str, bytes] = {}

    def get(self, key: str) -> list[T] | None:
        if key in self._lists:
            self._lists.move_to_end(key)
        return self._lists.get(key)

    def put(self, key: str, answers: list[T]) -> None:
        self._lists[key] = answers
        while sum(map(len, self._lists.values())) > MOST_TEXTS and len(self._lists) > 1:
            self._lists.popitem(last=False)


@dataclass(eq=False)
class Shared:
    """The places to look and to leave things, and where in the chain of keys this cell is.

    origin: what `chain` started from. hits: what was not computed, for the cell's cost.
    """

    memo: Memo
    chain: Chain
    origin: Mapping[str, Any]
    answered: AnswerCache[Any]
    store: Store | None = None
    hits: dict[str, float] = field(default_factory=dict)

    # ---- query features of all images

    def recall_bridge(self) -> Features | None:
        """From memory, or from disk and then into memory."""
        found = self.memo.get(self.chain.bridge)
        if found is None and self.store is not None and (payload := self.store.get(self.chain.bridge)) is not None:
            read = load(payload)
            found = (read["ids"], read["bad"], read["queries"].to(self.memo.device))
            self.answered.digests.pop(self.chain.bridge, None)
            self.memo.put(self.chain.bridge, found)
            self.hits["disk"] = 1
        return None if found is None else _features(*found)

    def keep_bridge(self, features: Features) -> None:
        """In memory when a later cell wants it, on disk for other jobs; not there when an image could not be read, for
        next time it may be."""
        assert features.query_features is not None
        self.answered.digests.pop(self.chain.bridge, None)
        ids, bad = ids_as_tensor(features.ids), ids_as_tensor(features.bad)
        if self.memo.later(self.chain.bridge):
            self.memo.put(self.chain.bridge, (ids, bad, features.query_features))
        if self.store is not None and not features.bad:
            kept = {"ids": ids, "bad": bad, "queries": features.query_features.cpu().contiguous()}
            self.store.put(self.chain.bridge, save(kept))

    # ---- states of the ViT, piece by piece

    def recall_state(self, rows: slice) -> tuple[Tensor | None, int]:
        """The state of these rows before the deepest block it is known for, and that block."""
        for depth in range(len(self.chain.vision) - 1, 0, -1):
            if (found := self.memo.get(_piece(self.chain.vision[depth], rows))) is not None:
                return found[0], depth
        return None, 0

    def keep_state(self, rows: slice, depth: int, state: Tensor) -> None:
        self.memo.put(_piece(self.chain.vision[depth], rows), (state,), self.chain.vision[depth])

    def stops(self, depth: int) -> list[int]:
        """Blocks after `depth` whose states are worth keeping: where a later cell leaves this cell's path."""
        keys = self.chain.keys
        later = [self.memo.later(key) for key in keys]
        return [d for d in range(max(1, depth + 1), len(self.chain.vision)) if later[d] > later[d + 1]]

    # ---- answers

    def language_key(self, features: Tensor, asked: Any) -> str:
        """By content: cells whose query features came out alike share answers, whatever made them."""
        digests, bridge = self.answered.digests, self.chain.bridge
        if bridge not in digests:  # which takes a copy to the host: once for all cells that have these features
            digests[bridge] = content_digest(features)
        text = f"{self.chain.language} {sorted(self.origin.items())} {asked}"
        return hashlib.sha256(text.encode() + digests[bridge]).hexdigest()


def _features(ids: Tensor, bad: Tensor, queries: Tensor) -> Features:
    return Features(ids_of_tensor(ids), query_features=queries, bad=ids_of_tensor(bad))


def ids_as_tensor(ids: Sequence[Id]) -> Tensor:
    """Image ids beside features: (n,) int64 of numbers; of texts their JSON as uint8."""
    if all(isinstance(i, int) for i in ids):
        return torch.tensor(ids, dtype=torch.int64)
    return torch.tensor(list(json.dumps(ids).encode()), dtype=torch.uint8)


def ids_of_tensor(kept: Tensor) -> tuple[Id, ...]:
    """The ids in what `ids_as_tensor` gave."""
    return tuple(json.loads(bytes(kept.tolist())) if kept.dtype == torch.uint8 else kept.tolist())


def _piece(key: str, rows: slice) -> str:
    return f"{key} {rows.start}-{rows.stop}"


def content_digest(x: Tensor) -> bytes:
    """sha256 over shape, dtype and bytes."""
    head = f"{tuple(x.shape)} {x.dtype}".encode()
    return hashlib.sha256(head + x.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()).digest()
