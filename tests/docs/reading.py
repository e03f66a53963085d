"""Pages of the repository, read as CommonMark with tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
CARDS = sorted((ROOT / "blip2sweep" / "assets").glob("*/README.md"))
AROUND = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES = [*AROUND, *sorted((ROOT / "docs").glob("*.md")), *CARDS]
READER = MarkdownIt("commonmark").enable("table")


def where(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@cache
def tokens(page: Path) -> list[Token]:
    """Of the text without a model card's YAML."""
    return READER.parse(re.sub(r"\A---\n.*?\n---\n", "", page.read_text(), flags=re.DOTALL))


def inline(page: Path) -> Iterator[Token]:
    for token in tokens(page):
        yield from token.children or []


def links(page: Path) -> Iterator[str]:
    """Targets of links and pictures, as they are written; those to other hosts not."""
    for token in inline(page):
        target = token.attrGet("href") if token.type == "link_open" else token.attrGet("src")
        if target is not None and not re.match(r"[a-z]+:", str(target)):
            yield str(target)


@cache
def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them: small letters, no punctuation, each space a dash."""
    read = tokens(page)
    titles = [read[i + 1].children or [] for i, token in enumerate(read) if token.type == "heading_open"]
    return {slug("".join(part.content for part in title)) for title in titles}


def slug(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")
