"""A bar is drawn on a terminal and in a notebook, and nowhere else; a call may be told to be silent."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator

import pytest
from rich.console import Console

from blip2sweep.console import bar, patience
from blip2sweep.console.bar import Bar, telling, verbose, watched


class Handle:
    """Of IPython: what is shown in the place of what was."""

    def __init__(self, shown: list[str]) -> None:
        self.shown = shown

    def update(self, picture: object) -> None:
        screen = Console(width=100)
        with screen.capture() as capture:
            screen.print(picture)
        self.shown.append(capture.get())


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A notebook without widgets. Yields the texts that were shown one after the other."""
    shown: list[str] = []

    def display(picture: object, display_id: bool) -> Handle:
        assert display_id
        Handle(shown).update(picture)
        return Handle(shown)

    module = types.ModuleType("IPython.display")
    module.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr(bar, "in_notebook", lambda: True)
    monkeypatch.setattr(bar, "SECONDS", 0.0)
    return shown


def test_a_notebook_sees_one_output_that_changes(notebook: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with telling(None), Bar("cells", 4) as drawn:
        drawn.update(1)
        drawn.update(4, "cells (1 failed)")
    assert [f"{n}/4" in text for n, text in zip((0, 1, 4, 4), notebook, strict=True)] == [True] * 4
    assert "cells (1 failed)" in notebook[-1]
    assert capsys.readouterr() == ("", "")


def test_a_slow_loop_has_one_too(notebook: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "SECONDS", -1.0)
    assert list(patience.shown([7, 8, 9], 3, "hashing [b]3[/b] images")) == [7, 8, 9]
    assert "hashing [b]3[/b] images" in notebook[0]


def test_silence_is_kept_in_a_notebook_too(notebook: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "SECONDS", -1.0)
    with telling(False):
        assert not watched()
        with Bar("cells", 2) as drawn:
            drawn.update(1)
        assert list(patience.shown([7], 1, "hashing")) == [7]
    assert notebook == []
    assert watched()


def test_a_terminal_has_a_bar_and_a_pipe_has_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Bar("cells", 2) as drawn:
        drawn.update(2)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    screen = Console(file=sys.stderr, force_terminal=True, width=100)
    with Bar("cells", 2, screen) as drawn:
        drawn.update(2)
    assert "2/2" in capsys.readouterr().err


@pytest.mark.parametrize(("progress", "said"), [(None, False), (True, True), (False, False)])
def test_who_is_not_watched_is_told_on_request(progress: bool | None, said: bool) -> None:
    with telling(progress):
        assert verbose() is said
        assert not watched()
    assert verbose()
