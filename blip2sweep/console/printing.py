"""Prints everything this package prints: hidden characters become visible, and a terminal in ASCII gets ASCII.

Names, errors and outputs of models come from files of others. A control character in them could rewrite the screen. A
bidirectional character could change the order of the text. Both are printed as escapes such as `\\x1b` and `\\u202e`.
"""

from __future__ import annotations

import codecs
import os
import re
import sys
import traceback
import warnings
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

# C0 except tab and newline, DEL, C1; invisible and bidirectional characters; Unicode's other line ends; halves of
# surrogate pairs, which Python makes of file names that are not UTF-8; tags. Joiners stay: emoji, Persian and Indian
# scripts need them.
HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
ASCII: dict[str, str | int | None] = {"−": "-", "–": "-", "—": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "…": "...", "×": "x", "±": "+/-", "≤": "<=",
         "≥": ">=", "→": "->", "↑": "^", "↓": "v", "·": ".", "│": "|", "┃": "|", "─": "-", "━": "-", "█": "#", "•": "*",
         "\u00a0": " "}  # fmt: skip
HANDLER = "blip2sweep"
FORMULA = re.compile(r"'*[=+\-@\t\r]")
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)


def visible(text: str) -> str:
    """The text with every hidden character as an escape. Newlines and tabs stay."""
    return HIDDEN.sub(_escape, text)


def one_line(text: str) -> str:
    """The text with every hidden character, newline and tab as an escape."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def joined(text: str) -> str:
    """The lines of a text joined into one, with hidden characters as escapes. Blanks within a line stay."""
    return one_line(re.sub(r"\s*[\r\n]+\s*", " ", text).strip())


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


# ---- printing


def say(*lines: str, err: bool = False) -> None:
    """Print lines. Each stays on one line, whatever characters it has."""
    say_text("\n".join(map(one_line, lines)), err)


def say_text(text: str, err: bool = False) -> None:
    """Print a text of several lines."""
    print(visible(text), file=sys.stderr if err else sys.stdout, flush=err)


def tell(text: str) -> None:
    """Print what is going on to stderr. stdout is for the result of the command."""
    say_text(text, err=True)


def console(err: bool = False, soft_wrap: bool = False) -> Console:
    """A rich console that prints texts as they are: no markup, no emoji codes, no colours by content.

    Hidden characters become visible. soft_wrap: leave the wrapping of long lines to the terminal.
    """
    from rich.console import Console

    class Plain(Console):
        def print(self, *objects: object, **options: Any) -> None:
            super().print(*(one_line(o) if isinstance(o, str) else o for o in objects), **options)

    # rich respects the encoding of a stream only if it is given one.
    stream = sys.stderr if err else sys.stdout
    return Plain(file=stream, markup=False, emoji=False, highlight=False, soft_wrap=soft_wrap)


def shown(value: object, err: bool = False) -> str:
    """One cell of a table as its stream will print it, so that columns are as wide as their cells."""
    encoding = getattr(sys.stderr if err else sys.stdout, "encoding", None) or "utf-8"
    return one_line(str(value)).encode(encoding, HANDLER).decode(encoding)


def cell(value: object, style: str = "") -> Text:
    """One cell of a rich table."""
    from rich.text import Text

    return Text(shown(value), style=style)


# ---- streams


def prepare() -> None:
    """Prepare the streams, once a process: they spell in ASCII what they cannot encode.

    Warnings and tracebacks are printed as all other texts are.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            plain = {"encoding": "ascii"} if _wants_ascii(stream) else {}
            stream.reconfigure(errors=HANDLER, **plain)
    warnings.showwarning = _warning
    sys.excepthook = _uncaught


def as_data() -> None:
    """Print UTF-8 from now on, also in a locale of ASCII: a program reads the output."""
    if hasattr(sys.stdout, "reconfigure") and not os.environ.get("PYTHONIOENCODING"):
        sys.stdout.reconfigure(encoding="utf-8", errors=HANDLER)


def _wants_ascii(stream: TextIO) -> bool:
    """Whether a stream is to get ASCII.

    Python writes UTF-8 in the C locale; a user who names that locale wants ASCII.
    """
    names = [os.environ.get(k) for k in ("LC_ALL", "LC_CTYPE", "LANG")]
    if names[1] == "C.UTF-8" and not names[0]:  # Python sets it when LANG is C
        names[1] = None
    locale = next((n for n in names if n), "")
    return locale in ("C", "POSIX") or (os.environ.get("TERM") == "dumb" and stream.isatty())


def _spelled(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    bad = error.object[error.start : error.end]
    return "".join(str(ASCII.get(c) or _escape_letter(c)) for c in bad), error.end


codecs.register_error(HANDLER, _spelled)


def _escape_letter(letter: str) -> str:
    return HIDDEN.sub(_escape, letter) if HIDDEN.match(letter) else letter.encode("ascii", "backslashreplace").decode()


def _warning(message: Warning | str, category: type[Warning], *place: object, **more: object) -> None:
    print(f"warning: {joined(str(message))}", file=sys.stderr, flush=True)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    say_text("".join(traceback.format_exception(kind, error, trace)).rstrip("\n"), err=True)


# ---- CSV


def defused(text: str) -> str:
    """The text for a cell of CSV. An apostrophe before it keeps spreadsheets from reading a formula. Numbers stay."""
    line = one_line(text)
    return f"'{line}" if FORMULA.match(line) and not NUMBER.fullmatch(line) else line


def fused(text: str) -> str:
    """The inverse of `defused`."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text
