"""ROUGE-L, as pycocoevalcap computes it."""

from __future__ import annotations

from collections.abc import Sequence


def rouge_l(candidate: str, references: Sequence[str], beta: float = 1.2) -> float:
    """ROUGE-L (Lin, 2004) of a tokenised candidate, 0-1: best precision and best recall over the references.

    Split at single spaces, so that nothing against nothing is 1, as in pycocoevalcap.
    """
    words = candidate.split(" ")
    others = [reference.split(" ") for reference in references]
    common = [longest_common_subsequence(words, other) for other in others]
    precision = max(length / len(words) for length in common)
    recall = max(length / len(other) for length, other in zip(common, others, strict=True))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision)


def longest_common_subsequence(left: Sequence[str], right: Sequence[str]) -> int:
    """The length of the longest common subsequence of two word lists."""
    previous = [0] * (len(right) + 1)
    for word in left:
        current = [0]
        for position, other in enumerate(right):
            current.append(previous[position] + 1 if word == other else max(previous[position + 1], current[-1]))
        previous = current
    return previous[-1]
