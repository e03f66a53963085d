"""Commands on a page: in a box with a button that copies it, and without absolute paths, since pages are passed on."""

from __future__ import annotations

import html
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

START = r"/[\w.~+-]"
# An absolute path in a word: between quotes, else after an equals sign, a comma, a colon or a bracket; never the // of an
# address.
PATH = re.compile(rf"(?<='){START}[^']*(?=')|(?<=\"){START}[^\"]*(?=\")|(?<![^\s=,:\[({{]){START}[^\s,'\"\])}}]*")


def box(command: str, output_dir: Path) -> str:
    """The HTML of a command in a box. output_dir: of the results, as typed."""
    text = html.escape(portable(command, output_dir))
    copy = '<button type="button" data-copy aria-label="Copy the command">Copy</button>'
    return f'<span class="command"><code>{text}</code>{copy}</span>'


def boxed(text: str, commands: Sequence[str], output_dir: Path) -> str:
    """The HTML of a text in which these commands stand in boxes. The mark that follows a command goes with it."""
    known = sorted(filter(None, commands), key=len, reverse=True)
    if not known:
        return html.escape(text)
    pieces = re.split(f"({'|'.join(map(re.escape, known))})", text)
    made = [box(piece, output_dir) if i % 2 else html.escape(piece) for i, piece in enumerate(pieces)]
    return "".join(re.sub(r"^[;.]\s*", "", m) if i and not i % 2 else m for i, m in enumerate(made))


def portable(command: str, output_dir: Path) -> str:
    """The command with paths relative to the folder in which `output_dir` is typed as it stands there."""
    folder = folder_of(output_dir)
    try:
        words = shlex.split(command)
    except ValueError:  # an unpaired quote of a prompt
        return PATH.sub(lambda found: _relative(found[0], folder), command)
    shown = [_word(word, folder) for word in words]
    return shlex.join(shown) if shown != words else command


def _word(word: str, folder: Path) -> str:
    key, equals, value = word.partition("=") if not word.startswith("/") else ("", "", word)
    if re.match(START, value) and "," not in value:
        return f"{key}{equals}{_relative(value, folder)}"
    return PATH.sub(lambda found: _relative(found[0], folder), word)


def folder_of(output_dir: Path) -> Path:
    """The absolute folder in which a page's commands are run: the current one where it holds the results, else theirs."""
    return Path.cwd() if output_dir.absolute().is_relative_to(Path.cwd()) else output_dir.absolute().parent


def where_to_run(output_dir: Path) -> str:
    """A sentence that says where a page's commands are run."""
    return f"Commands are run in the folder that holds {os.path.relpath(output_dir.absolute(), folder_of(output_dir))}."


def _relative(path: str, folder: Path) -> str:
    """A path as it is, where it is one word such as /think of a prompt and no path of this machine."""
    return path if path.count("/") < 2 and not Path(path).exists() else os.path.relpath(path, folder)
