"""How captions become tokens: Stanford's PTB tokenizer as pycocoevalcap runs it, or none at all."""

from __future__ import annotations

import atexit
import contextlib
import functools
import secrets
import string
import threading
from collections.abc import Sequence
from typing import IO

from blip2sweep.metrics.java import JavaError, jar, one_line
from blip2sweep.metrics.java_process import JavaProcess

# The tokens pycocoevalcap 1.2 throws away (ptbtokenizer.py, PUNCTUATIONS).
_PUNCTUATION = frozenset("'' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ;".split())


def tokenize(texts: Sequence[str]) -> list[str]:
    """n texts, lower-cased, PTB-tokenised, without punctuation, tokens joined by one space: pycocoevalcap's form.

    Line breaks inside a text count as spaces. The first call starts Java, about 0.2 s; then 1 s a million tokens. Each
    text is tokenised alone: a line holding only a period follows each one, because the tokenizer looks past the end of a
    line to tell an abbreviation from the end of a sentence. Raises JavaError, or UserError without Java.
    """
    if not texts:
        return []
    lines = [line for text in texts for line in (one_line(text), ".")]
    tokens = shared_tokenizer()(lines)
    if len(tokens) != len(lines) or any(line != "." for line in tokens[1::2]):
        raise JavaError(f"the PTB tokenizer lost step: {len(lines)} lines in, {len(tokens)} out")
    return [_without_punctuation(line) for line in tokens[::2]]


class Tokenizer(JavaProcess):
    """One process of the tokenizer. It is made for files: its output waits in two buffers of 8 KiB, so what fills them
    follows each question, and two words that no text has tell where the answer begins and ends. Any thread may call it."""

    # The first line closes a quote that a text opened inside of a tag: the tokenizer would look for its end, and wait.
    FILL = "\") ')\n" + ("x" * 99 + "\n") * 400
    SECONDS = 60.0  # without an answer it hangs; and LINES a second are read on the slowest machine
    LINES = 1000

    def __init__(self) -> None:
        super().__init__()
        self.begin, self.end = ("".join(secrets.choice(string.ascii_lowercase) for _ in range(16)) for _ in "ab")

    def words(self) -> Sequence[str]:
        path = jar("tokenizer/stanford-corenlp-3.4.1.jar")
        program = "edu.stanford.nlp.process.PTBTokenizer"
        return ["-cp", str(path), program, "-preserveLines", "-lowerCase", "-encoding", "UTF-8"]

    def __call__(self, lines: Sequence[str]) -> list[str]:
        """The tokens of each line. Raises JavaError, after which the next call starts a new process."""
        asked = "\n".join([self.begin, *lines, self.end, self.FILL]).encode("utf-8", errors="replace")
        with self._lock:
            process = self._started()
            late = threading.Timer(self.SECONDS + len(lines) / self.LINES, process.kill)
            assert process.stdin is not None
            assert process.stdout is not None
            # From a thread: neither side waits for the other on a full pipe.
            writer = threading.Thread(target=_write, args=(process.stdin, asked), daemon=True)
            try:
                late.start()
                writer.start()
                self._skip(process.stdout)
                found = list(iter(lambda: self._line(process.stdout), self.end))
                writer.join()
                return found
            except BaseException as error:  # also after Ctrl-C: unread lines would be taken for those of the next call
                reason = self._stop()
                if isinstance(error, (OSError, ValueError)):
                    raise JavaError(f"the PTB tokenizer failed: {reason or error}") from error
                raise
            finally:
                late.cancel()

    def _skip(self, pipe: IO[bytes]) -> None:
        """Read what is left of the filling before."""
        while self._line(pipe) != self.begin:
            pass

    def _line(self, pipe: IO[bytes] | None) -> str:
        assert pipe is not None
        if not (line := pipe.readline()):
            raise ValueError("it ended without an answer")
        return line.decode("utf-8").rstrip("\n")


def _write(pipe: IO[bytes], asked: bytes) -> None:
    with contextlib.suppress(OSError, ValueError):  # who reads meets a process that ended
        pipe.write(asked)
        pipe.flush()


@functools.cache
def shared_tokenizer() -> Tokenizer:
    """The tokenizer of this process: one, kept until the interpreter ends."""
    tokenizer = Tokenizer()
    atexit.register(tokenizer.close)
    return tokenizer


def lowered(texts: Sequence[str]) -> list[str]:
    """n texts in lower case without the white space around them: what is scored where no tokenizer runs.

    Words end at spaces, so that a full stop belongs to the word before it. Some studies score so, such as those of RSICD.
    """
    return [text.lower().strip() for text in texts]


TOKENIZERS = {"ptb": tokenize, "none": lowered}


def _without_punctuation(line: str) -> str:
    return " ".join(token for token in line.rstrip().split(" ") if token not in _PUNCTUATION)
