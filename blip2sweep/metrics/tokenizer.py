"""How captions become tokens: Stanford's PTB tokenizer as pycocoevalcap runs it, or none at all."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence

from blip2sweep.metrics.java import JAVA_FLAGS, JavaError, jar, java_binary, last_line, one_line

# The tokens pycocoevalcap 1.2 throws away (ptbtokenizer.py, PUNCTUATIONS).
_PUNCTUATION = frozenset("'' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ;".split())


def tokenize(texts: Sequence[str]) -> list[str]:
    """n texts, lower-cased, PTB-tokenised, without punctuation, tokens joined by one space: pycocoevalcap's form.

    Line breaks inside a text count as spaces. One JVM start, about 0.2 s, plus 1 s a million tokens. Each text is
    tokenised alone: a line holding only a period follows each one, because the tokenizer looks past the end of a line
    to tell an abbreviation from the end of a sentence. Raises JavaError, or UserError without Java.
    """
    if not texts:
        return []
    lines = [line for text in texts for line in (one_line(text), ".")]
    tokens = _run_tokenizer("\n".join(lines)).split("\n")
    if len(tokens) < len(lines) or any(line != "." for line in tokens[1 : len(lines) : 2]):
        raise JavaError(f"the PTB tokenizer lost step: {len(lines)} lines in, {len(tokens)} out")
    return [_without_punctuation(line) for line in tokens[: len(lines) : 2]]


def lowered(texts: Sequence[str]) -> list[str]:
    """n texts in lower case without the white space around them: what is scored where no tokenizer runs.

    Words end at spaces, so that a full stop belongs to the word before it. Some studies score so, such as those of RSICD.
    """
    return [text.lower().strip() for text in texts]


TOKENIZERS = {"ptb": tokenize, "none": lowered}


def _run_tokenizer(text: str) -> str:
    path = jar("tokenizer/stanford-corenlp-3.4.1.jar")
    command = [java_binary(), *JAVA_FLAGS, "-cp", str(path), "edu.stanford.nlp.process.PTBTokenizer"]
    command += ["-preserveLines", "-lowerCase", "-encoding", "UTF-8"]
    with tempfile.NamedTemporaryFile(suffix=".txt") as file:
        file.write(text.encode("utf-8", errors="replace"))
        file.flush()
        done = subprocess.run([*command, file.name], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        raise JavaError(f"the PTB tokenizer failed: {last_line(done.stderr)}")
    return done.stdout.decode("utf-8")


def _without_punctuation(line: str) -> str:
    return " ".join(token for token in line.rstrip().split(" ") if token not in _PUNCTUATION)
