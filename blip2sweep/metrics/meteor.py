"""METEOR 1.5 (Denkowski and Lavie, 2014): one Java process for many segments."""

from __future__ import annotations

import atexit
import functools
from collections.abc import Sequence

import numpy as np

from blip2sweep.metrics.core import METEOR_COLUMNS
from blip2sweep.metrics.java import JavaError, jar, one_line
from blip2sweep.metrics.java_process import JavaProcess
from blip2sweep.metrics.metric import FloatArray

# Segments sent to METEOR before its answers are read: 100 bytes an answer stay below the 64 KiB of a pipe, so neither
# side can block on a full pipe while the other one does.
_BATCH = 256
# The aligner's time and memory grow without bound: 1,000 equal words against 60 take seconds, 50,000 end in a stack of
# Java.
MOST_WORDS = 500


class Meteor(JavaProcess):
    """One METEOR 1.5 process (``-stdio -l en -norm``), started at first use: 5-9 s, then about 0.5 ms a segment.

    Any thread may call it.
    """

    def words(self) -> Sequence[str]:
        return ["-jar", str(jar("meteor/meteor-1.5.jar")), "-", "-", "-stdio", "-l", "en", "-norm"]

    def statistics(self, references: Sequence[Sequence[str]], candidates: Sequence[str]) -> FloatArray:
        """The "meteor" statistic, (n, 21) float64, of n tokenised candidates, each against its tokenised references.

        Only the best-scoring reference of each counts, as METEOR does. Of a candidate the first MOST_WORDS words are
        aligned; those after them count as words that match nothing, so that a text without end gets a score as well,
        the lower the longer it is. Raises JavaError, after which the next call starts a new process.
        """
        pieces = [_pieces(candidate) for candidate in candidates]
        lines = [_score_line(texts, own[0]) for texts, own in zip(references, pieces, strict=True)]
        rest = [(row, piece) for row, own in enumerate(pieces) for piece in own[1:]]
        lines += [_score_line(["x"], piece) for _, piece in rest]
        with self._lock:
            answers = [answer for i in range(0, len(lines), _BATCH) for answer in self._ask(lines[i : i + _BATCH])]
        rows = np.array(answers, dtype=np.float64).reshape(-1, METEOR_COLUMNS)
        for (row, _), uncounted in zip(rest, rows[len(pieces) :], strict=True):
            rows[row, [0, 2]] += uncounted[[0, 2]]  # words, and function words among them
        return _without_perfect_chunks(rows[: len(pieces)])

    def _ask(self, lines: list[bytes]) -> list[list[float]]:
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(b"".join(lines))
            process.stdin.flush()
            return [_parse(process.stdout.readline()) for _ in lines]
        except BaseException as error:
            # Also after Ctrl-C: unread answers would be taken for those of the next call.
            reason = self._stop()
            if isinstance(error, (OSError, ValueError)):
                raise JavaError(f"METEOR failed: {reason or error}") from error
            raise


@functools.cache
def shared_meteor() -> Meteor:
    """The METEOR process of this worker: one, kept until the interpreter ends."""
    meteor = Meteor()
    atexit.register(meteor.close)
    return meteor


def _pieces(candidate: str) -> list[str]:
    """A candidate in pieces of MOST_WORDS words; nearly always it is one."""
    if candidate.count(" ") < MOST_WORDS:
        return [candidate]
    words = candidate.split(" ")
    return [" ".join(words[i : i + MOST_WORDS]) for i in range(0, len(words), MOST_WORDS)]


def _score_line(references: Sequence[str], candidate: str) -> bytes:
    """A SCORE request. ``|||`` separates fields, so it cannot stay in a text; pycocoevalcap removes it the same way."""
    fields = ["SCORE", *(_one_field(text) for text in references), _one_field(candidate)]
    return (" ||| ".join(fields) + "\n").encode("utf-8", errors="replace")


def _one_field(text: str) -> str:
    return one_line(text).replace("|||", "").replace("  ", " ")


def _parse(answer: bytes) -> list[float]:
    numbers = [float(number) for number in answer.split()]
    if len(numbers) != METEOR_COLUMNS + 2:  # the last two, word matches, serve character-based languages only
        raise ValueError(f"unexpected answer {answer[:80]!r}")
    return numbers[:METEOR_COLUMNS]


def _without_perfect_chunks(rows: FloatArray) -> FloatArray:
    """A candidate that equals its reference is not fragmented: METEOR adds no chunk for it (MeteorStats.addStats)."""
    matches = rows[:, 4:20].reshape(-1, 4, 2, 2).sum(axis=(1, 2))  # candidate, reference
    perfect = (matches == rows[:, :2]).all(axis=1) & (rows[:, 20] == 1)
    rows[perfect, 20] = 0
    return rows
