"""Recall from scored pairs alone, against the dense matrices and the argsort of LAVIS's evaluation."""

from __future__ import annotations

import numpy as np
import pytest

from blip2sweep.metrics.recall import CUTS, METRICS, Pairs, best_ranks, recall_statistics

LEFT_OUT = -100.0


def kept(similar: np.ndarray, k: int) -> np.ndarray:
    """The k best candidates of each row, the later one of equals first."""
    return np.argsort(similar, axis=1, kind="stable")[:, ::-1][:, :k]


def pairs(candidates: np.ndarray, scores: np.ndarray) -> Pairs:
    return Pairs.of_rows(candidates.tolist(), np.take_along_axis(scores, candidates, 1).tolist())


def dense(candidates: np.ndarray, scores: np.ndarray) -> np.ndarray:
    full = np.full(scores.shape, LEFT_OUT)
    np.put_along_axis(full, candidates, np.take_along_axis(scores, candidates, 1), 1)
    return full


def lavis(i2t: np.ndarray, t2i: np.ndarray, texts_of: list[list[int]], image_of: list[int]) -> dict[str, float]:
    """LAVIS's itm_eval (lavis/tasks/retrieval.py) in plain words, as fractions, with a stable argsort."""

    def order(row: np.ndarray) -> list[int]:
        return np.argsort(row, kind="stable")[::-1].tolist()

    tr = [min(order(row).index(j) for j in own) for row, own in zip(i2t, texts_of, strict=True)]
    ir = [order(row).index(i) for row, i in zip(t2i, image_of, strict=True)]
    said = {f"tr_at_{cut}": float(np.mean(np.array(tr) < cut)) for cut in CUTS}
    said |= {f"ir_at_{cut}": float(np.mean(np.array(ir) < cut)) for cut in CUTS}
    return said | {"recall_mean": float(np.mean(list(said.values())))}


@pytest.mark.parametrize("seed", range(60))
def test_recalls_are_those_of_the_dense_matrices(seed: int) -> None:
    """With ties of cosines and of scores, scores at and below that of what is left out, and any k."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 8, int(rng.integers(2, 40)))
    last = np.cumsum(counts) - 1
    first, images, texts = last - counts + 1, len(counts), int(counts.sum())
    similar = rng.integers(0, [3, 1000][seed % 2], (images, texts)) / 8
    scores = rng.integers(0, [3, 1000][seed // 2 % 2], (images, texts)) / 8 - (101 if seed % 5 == 0 else 0)
    k = int(rng.integers(1, texts + 4))
    asked, asking = kept(similar, k), kept(similar.T, k)
    found = recall_statistics(pairs(asked, scores), pairs(asking, scores.T), first, last, texts, LEFT_OUT)["recall"]
    own = [list(range(a, b + 1)) for a, b in zip(first, last, strict=True)]
    image_of = [i for i, texts_of in enumerate(own) for _ in texts_of]
    wanted = lavis(dense(asked, scores), dense(asking, scores.T), own, image_of)
    assert {m.name: m.value(found) for m in METRICS} == pytest.approx(wanted, abs=1e-12)


def test_text_queries_move_with_their_image_and_the_gallery_stays_whole() -> None:
    """Statistics of some images are those rows of all: what else there is to find does not change."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(6, 12))
    first = np.arange(6) * 2
    whole = recall_statistics(*(pairs(kept(x, 4), x) for x in (scores, scores.T)), first, first + 1, 12, LEFT_OUT)
    assert whole["recall"].shape == (6, 8)
    assert whole["recall"][:, [3, 7]].tolist() == [[1, 2]] * 6
    tr, ir = METRICS[1], METRICS[4]
    assert tr.each(whole["recall"]).tolist() == whole["recall"][:, 0].tolist()
    assert ir.value(whole["recall"][2:4]) == whole["recall"][2:4, 4].sum() / 4


def test_texts_of_images_that_were_not_read_are_no_queries_and_stay_in_the_gallery() -> None:
    scores = np.array([[0.0, 1, 5, 2], [9, 1, 0, 8]])  # of images 0 and 2; texts 1 and 2 are of image 1
    asked, asking = (pairs(kept(x, 9), x) for x in (scores, scores.T))
    rows = recall_statistics(asked, asking, np.array([0, 3]), np.array([0, 3]), 4, LEFT_OUT)["recall"]
    assert rows.tolist() == [[0, 1, 1, 1, 0, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1, 1]]


def test_a_candidate_that_was_not_scored_comes_behind_all_that_were() -> None:
    one = Pairs.of_rows([[4, 3]], [[0.0, 1.0]])
    assert [int(best_ranks(one, np.array([j]), np.array([j]), 6, LEFT_OUT)[0]) for j in range(6)] == [5, 4, 3, 0, 1, 2]
    with pytest.raises(ValueError, match="as many scores as candidates"):
        Pairs.of_rows([[4, 3]], [[0.0]])
