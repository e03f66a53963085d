"""All that is printed goes through here: untrusted text becomes visible, and a terminal in ASCII gets ASCII.

Names, errors and outputs come from files of others. A control character in them could rewrite what a terminal shows, and a
bidirectional one the order of what is read, so both are shown as escapes such as `\\x1b` and `\\u202e`.
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

# C0 but tab and newline, DEL, C1; what is invisible or turns the order around; line ends that are none; halves of pairs,
# which file names that are no UTF-8 come in; tags. Joiners stay: emoji, Persian and Indian scripts are written with them.
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
    """A text of several lines with every hidden character as an escape."""
    return HIDDEN.sub(_escape, text)


def one_line(text: str) -> str:
    """`visible`, newlines and tabs too."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def joined(text: str) -> str:
    """The lines of a text as one, hidden characters as escapes; blanks within a line stay."""
    return one_line(re.sub(r"\s*[\r\n]+\s*", " ", text).strip())


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


# ---- printing


def say(*lines: str, err: bool = False) -> None:
    """Print lines, each on a line of its own whatever is in it."""
    say_text("\n".join(map(one_line, lines)), err)


def say_text(text: str, err: bool = False) -> None:
    """Print a text of several lines."""
    print(visible(text), file=sys.stderr if err else sys.stdout, flush=err)


def tell(text: str) -> None:
    """Say on stderr what happens meanwhile; stdout is for what was asked for."""
    say_text(text, err=True)


def console(err: bool = False, **settings: Any) -> Console:
    """A rich console for texts that mean themselves: no markup, no emoji codes, no colours by content, hidden characters visible."""
    from rich.console import Console

    class Plain(Console):
        def print(self, *objects: Any, **options: Any) -> None:
            super().print(*(one_line(o) if isinstance(o, str) else o for o in objects), **options)

    # The stream is named, since rich looks at its encoding only then.
    stream = sys.stderr if err else sys.stdout
    return Plain(file=stream, markup=False, emoji=False, highlight=False, **settings)


def shown(value: object, err: bool = False) -> str:
    """One cell of a table as its stream will show it, so that columns are as wide as their cells."""
    encoding = getattr(sys.stderr if err else sys.stdout, "encoding", None) or "utf-8"
    return one_line(str(value)).encode(encoding, HANDLER).decode(encoding)


def cell(value: object, style: str = "") -> Text:
    """One cell of a rich table."""
    from rich.text import Text

    return Text(shown(value), style=style)


# ---- streams


def prepare() -> None:
    """Once, at the door: what a stream cannot encode is spelled in ASCII; warnings and tracebacks are printed as all else is."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            plain = {"encoding": "ascii"} if _wants_ascii(stream) else {}
            stream.reconfigure(errors=HANDLER, **plain)
    warnings.showwarning = _warning
    sys.excepthook = _uncaught


def as_data() -> None:
    """What is printed next is read by programs: UTF-8 also where the locale says that people read ASCII."""
    if hasattr(sys.stdout, "reconfigure") and not os.environ.get("PYTHONIOENCODING"):
        sys.stdout.reconfigure(encoding="utf-8", errors=HANDLER)


def _wants_ascii(stream: TextIO) -> bool:
    """Python itself writes UTF-8 in the C locale; who asks for that locale by name is believed."""
    names = [os.environ.get(k) for k in ("LC_ALL", "LC_CTYPE", "LANG")]
    if names[1] == "C.UTF-8" and not names[0]:  # what Python puts there when LANG is C
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


def _warning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    print(f"warning: {joined(str(message))}", file=sys.stderr, flush=True)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    say_text("".join(traceback.format_exception(kind, error, trace)).rstrip("\n"), err=True)


# ---- CSV


def defused(text: str) -> str:
    """A text for a cell of CSV that no spreadsheet takes for a formula: an apostrophe goes before. Numbers stay."""
    line = one_line(text)
    return f"'{line}" if FORMULA.match(line) and not NUMBER.fullmatch(line) else line


def fused(text: str) -> str:
    """The inverse of `defused`."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text
