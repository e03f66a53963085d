"""`make docs`: the site is built without a warning, and shows what the pages say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from scripts.site_pages import ELSEWHERE
from tests.docs.reading import PAGES, ROOT, tokens, where

pytestmark = pytest.mark.thorough
KINDS = {"list_item_open": "li", "table_open": "table", "tr_open": "tr"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stderr
    assert not built.stderr
    return folder


class Shown(HTMLParser):
    """How often each tag stands in the article, and what is linked."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        source = dict(attrs).get("href" if tag == "link" else "src")
        if tag in ("link", "script", "img") and source:
            self.fetched.append(source)


def page_of(site: Path, page: Path) -> str:
    there = ELSEWHERE.get(where(page), page.name)
    return (site / there).with_suffix(".html").read_text()


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent.name != "shapes" and p.name != "api.md"], ids=where)
def test_lists_and_tables_are_those_of_the_page(site: Path, page: Path) -> None:
    """Python's Markdown wants blank lines and wider indents where CommonMark wants none."""
    article = re.search(r"<article.*?</article>", page_of(site, page), re.DOTALL)
    assert article
    shown, meant = Shown(article[0]).tags, [KINDS.get(token.type) for token in tokens(page)]
    assert {tag: shown.count(tag) for tag in KINDS.values()} == {tag: meant.count(tag) for tag in KINDS.values()}


def test_functions_and_protocols_have_their_docstrings(site: Path) -> None:
    text = (site / "api.html").read_text()
    for name in (
        "sweep",
        "plan",
        "evaluate",
        "load_table",
        "load_samples",
        "report",
        "models.architecture.Architecture",
        "tasks.task.Task",
        "backends.backend.Backend",
    ):
        assert f'id="blip2sweep.{name}"' in text
    assert "Run a sweep on this machine" in text


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert not [s for s in Shown(page.read_text()).fetched if re.match(r"(https?:)?//", s)], page.name
