"""A link to a view restores it in a real Chromium; commands are copied; what a link says wrongly does no harm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from blip2sweep.reporting.html import build_report
from blip2sweep.reporting.models_page import write_models_page
from blip2sweep.reporting.source import load_source
from blip2sweep.reporting.sources import load_sources
from tests.reporting.browser import chromium, errors, wait
from tests.reporting.two_models import BLIP2, LLAVA, cells, sweep
from tests.synthetic import build, whole

pytestmark = [pytest.mark.xdist_group("chromium"), pytest.mark.thorough]
CHOOSE = "const s = document.querySelectorAll('{0} select')[{1}]; s.value = '{2}'; s.dispatchEvent(new Event('change'))"
CHOSEN = "return document.querySelectorAll('{0} select')[{1}].value"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("view")
    build(folder, [whole(p, b, m) for p in (["vit"], ["llm"]) for b in (4, 2) for m in ("rtn", "gptq")], n=30)
    build_report(load_source(folder), folder / "report.html")
    return folder / "report.html"


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with chromium(tmp_path_factory.mktemp("profile"), 1280, 800) as opened:
        yield opened


def show(driver: Any, address: str) -> None:
    driver.get("about:blank")
    driver.get(address)
    wait(driver, "document.body.dataset.drawn")


def test_a_link_restores_choices_filters_order_and_sample(driver: Any, page: Path) -> None:
    show(driver, page.as_uri())
    driver.execute_script(CHOOSE.format("#tools-frontier", 0, "model_bytes"))
    driver.execute_script(CHOOSE.format("#cell-tools", 0, "llm"))
    driver.execute_script("document.querySelectorAll('#cell-table th button')[5].click()")
    driver.execute_script("document.getElementById('captions').scrollIntoView()")
    wait(driver, "document.getElementById('outputs') !== null")
    driver.execute_script(CHOOSE.format("#browser", 1, "2") + "; document.getElementById('next').click()")
    seen = "return [document.getElementById('cell-table').textContent, document.getElementById('sample').textContent]"
    before, link = driver.execute_script(seen), driver.current_url
    assert link.startswith(page.as_uri() + "#captions?")
    show(driver, link)
    wait(driver, "document.getElementById('outputs') !== null")  # the page went to the section
    assert driver.execute_script(seen) == before
    assert driver.execute_script(CHOSEN.format("#tools-frontier", 0)) == "model_bytes"
    assert driver.execute_script(CHOSEN.format("#browser", 1)) == "2"
    assert "2 of 30" in driver.execute_script("return document.getElementById('sample-at').textContent")
    driver.execute_script("location.hash = '#cells'")
    wait(driver, "location.hash.startsWith('#cells?')")  # going to a section keeps the choices
    assert errors(driver) == []


def test_a_link_goes_to_its_section_below_outputs_that_unpack_later(driver: Any, page: Path) -> None:
    show(driver, page.as_uri() + "#cells?cells.parts=llm")
    wait(driver, "document.getElementById('outputs') !== null")
    top = "document.getElementById('cells').getBoundingClientRect().top"
    wait(driver, f"{top} >= 0 && {top} < 100")
    assert driver.execute_script("return document.getElementById('cell-count').textContent") == "4 of 9 cells"


@pytest.mark.parametrize("fragment", ["?", "#x?frontier=none&cells.parts=none&cells.sort=toString&sample=x&order=y&model=z",
                                      "#%3Cimg%20src=x%20onerror=hacked()%3E?dropoff=%3Cb%3E&__proto__=1"])  # fmt: skip
def test_a_link_with_other_choices_shows_the_page_as_it_is(driver: Any, page: Path, fragment: str) -> None:
    show(driver, page.as_uri() + fragment)
    assert driver.execute_script("return document.getElementById('cell-count').textContent") == "9 of 9 cells"
    assert driver.execute_script("return document.getElementById('plot-frontier').data.length") > 0
    assert errors(driver) == []


def test_a_link_restores_the_model(driver: Any, tmp_path: Path) -> None:
    sweep(
        tmp_path,
        {"tiny": cells(BLIP2, (4, 2)), "tiny-llava": cells(LLAVA, (4, 2))},
        samples={"tiny": 20, "tiny-llava": 20},
    )
    path = tmp_path / "report.html"
    write_models_page(load_sources(tmp_path), path)
    show(driver, path.as_uri())
    driver.execute_script("buttons()[1].click()")
    wait(driver, "document.body.dataset.drawn === '2'")
    driver.execute_script(CHOOSE.format("#cell-tools", 0, "vision"))
    link = driver.current_url
    show(driver, link)
    assert driver.execute_script("return [chosen, document.getElementById('cell-count').textContent]") == [
        1,
        "2 of 9 cells",
    ]
    assert errors(driver) == []


def test_a_command_is_copied_and_its_button_says_so(driver: Any, page: Path) -> None:
    show(driver, page.as_uri())
    driver.execute_script(
        "navigator.clipboard.writeText = (text) => { window.copied = text; return Promise.resolve(); }"
    )
    shown = driver.execute_script("return document.querySelector('.sentences .command code').textContent")
    driver.execute_script("document.querySelector('.sentences [data-copy]').click()")
    wait(driver, "document.querySelector('.sentences [data-copy]').textContent === 'Copied'")
    assert driver.execute_script("return copied") == shown
    assert shown.startswith("python -m blip2sweep -m ")
    driver.execute_script("document.getElementById('link').click()")
    wait(driver, "copied === location.href")
