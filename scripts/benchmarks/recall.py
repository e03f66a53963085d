"""How long recall takes from the pairs that were scored, of a task as large as COCO's test split."""

from __future__ import annotations

import time

import numpy as np

from blip2sweep.metrics.recall import Pairs, recall_statistics

CAPTIONS = 5  # of a picture


def seconds(pictures: int = 5000, k: int = 128, seed: int = 0) -> float:
    """Processor seconds of the statistics of all pictures, from the lists of a predictions file to the (n, 8) array."""
    rng, texts = np.random.default_rng(seed), CAPTIONS * pictures
    asked, asking = ([rng.integers(0, texts, n).tolist() for _ in range(pictures)] for n in (k, CAPTIONS * k))
    scores, asking_scores = ([rng.normal(size=len(row)).tolist() for row in rows] for rows in (asked, asking))
    first = np.arange(pictures) * CAPTIONS
    start = time.process_time()
    found, finding = Pairs.of_rows(asked, scores), Pairs.of_rows(asking, asking_scores).turned
    recall_statistics(found, finding, first, first + CAPTIONS - 1, texts, -100.0)
    return time.process_time() - start
