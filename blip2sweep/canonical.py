"""The canonical JSON of a value, and its hash."""

from __future__ import annotations

import hashlib
import json

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def canonical_json(data: object) -> str:
    """JSON in ASCII with sorted keys and without spaces. Raises ValueError for NaN and infinity."""
    return _ENCODER.encode(data)


def digest(data: object) -> str:
    """The sha256 of the canonical JSON, in hex digits."""
    return hashlib.sha256(canonical_json(data).encode()).hexdigest()
