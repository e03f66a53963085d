"""`blip2sweep lmms bridge`: the program for the environment of lmms-eval."""

from __future__ import annotations

from importlib.resources import files


def program() -> str:
    """The text of blip2sweep/lmms/bridge.py, which nothing here imports."""
    return (files("blip2sweep.lmms") / "bridge.py").read_text(encoding="utf-8")
