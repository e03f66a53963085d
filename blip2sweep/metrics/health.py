"""Statistics of outputs that need no references: empty outputs, lengths, and equality with the baseline's outputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from blip2sweep.metrics.metric import FloatArray


def health_statistics(texts: Sequence[str]) -> dict[str, FloatArray]:
    """``{"health": (n, 3)}``, float64, of n texts: whether it is empty (0 or 1), its length in words, and 1.

    A text of nothing but whitespace is empty. Words are split at whitespace, before any normalisation.
    """
    words = np.array([len(text.split()) for text in texts], dtype=np.float64)
    return {"health": np.column_stack([words == 0, words, np.ones_like(words)])}


def same_as_baseline(texts: Sequence[str], baseline: Sequence[str]) -> float:
    """The share (0-1) of n outputs that equal the baseline's output for the same sample, character by character."""
    if len(texts) != len(baseline):
        raise ValueError(f"{len(texts)} outputs but {len(baseline)} baseline outputs; give one of each a sample")
    return (
        float(np.mean([text == other for text, other in zip(texts, baseline, strict=True)]))
        if len(texts)
        else float("nan")
    )
