"""The README is short, links lead somewhere, the site has every page, and lists of what there is are whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from blip2sweep.__main__ import VERBS
from scripts.site_pages import ELSEWHERE, linked
from tests.docs.reading import PAGES, ROOT, anchors, links, slug, tokens, where

DOCS = ROOT / "docs"


@pytest.mark.parametrize("page", PAGES, ids=where)
def test_every_link_and_anchor_exists(page: Path) -> None:
    for link in links(page):
        file, _, anchor = link.partition("#")
        meant = (page.parent / file).resolve() if file else page
        assert meant.exists(), link
        assert not anchor or anchor in anchors(meant), link


def test_the_reader_sees_links_in_tables_and_pictures() -> None:
    found = set(links(ROOT / "README.md"))
    assert {"docs/language.md", "docs/images/dropoff.png", "blip2sweep/assets/tiny/README.md"} <= found
    assert slug(" A checkpoint: `blip2sweep quantize`, 2 × ") == "a-checkpoint-blip2sweep-quantize-2-"


def test_the_readme_is_a_screen_and_a_half() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_the_readme_leads_to_every_page() -> None:
    named = {link.removeprefix("docs/") for link in links(ROOT / "README.md") if link.startswith("docs/")}
    assert {page.name for page in DOCS.glob("*.md")} <= named


def test_the_site_has_every_page_once() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    named = re.findall(r"[\w/.-]+\.(?:md|ipynb)$", text.partition("\nnav:\n")[2], re.MULTILINE)
    assert sorted(named) == sorted({p.name for p in DOCS.glob("*.md")} | set(ELSEWHERE.values()))
    assert all((ROOT / file).is_file() for file in ELSEWHERE)


@pytest.mark.parametrize(
    ("page", "link", "there"),
    [
        ("index.md", "docs/models.md#blip-2", "models.md#blip-2"),
        ("index.md", "docs/images/dropoff.png", "images/dropoff.png"),
        ("index.md", "blip2sweep/assets/tiny/README.md", "cards/tiny.md"),
        ("models.md", "../blip2sweep/assets/tiny/README.md", "cards/tiny.md"),
        ("models.md", "tasks.md", "tasks.md"),
        ("models.md", "#blip-2", "#blip-2"),
        ("models.md", "https://example.org/docs/a.md", "https://example.org/docs/a.md"),
        ("cards/tiny-itm.md", "../tiny/README.md", "tiny.md"),
        ("api.md", "../README.md", "index.md"),
    ],
)
def test_a_link_leads_to_the_same_page_on_the_site(page: str, link: str, there: str) -> None:
    assert linked(f"see [it]({link}), and", page) == f"see [it]({there}), and"


def test_every_verb_is_on_the_page_of_commands() -> None:
    code = " ".join(re.findall(r"`([^`]+)`", (DOCS / "commands.md").read_text()))
    assert {"plan", *VERBS} <= set(re.findall(r"[\w-]+", code))


def test_every_room_and_script_is_in_the_tree() -> None:
    tree = next(t.content for t in tokens(DOCS / "architecture.md") if t.type == "fence")
    rooms = {f"{p.name}/" for p in (ROOT / "blip2sweep").iterdir() if (p / "__init__.py").exists()} | {"assets/"}
    assert rooms <= set(re.findall(r"[\w]+/", tree))


def test_the_site_is_configured_as_yaml_that_needs_no_code() -> None:
    """But for the one function that makes anchors."""
    text = re.sub(r"!!python/object/apply:pymdownx\.slugs\.slugify", "", (ROOT / "mkdocs.yml").read_text())
    assert yaml.safe_load(text)["strict"] is True
