"""The page in a real Chromium: every figure, filters, outputs, hostile text, no network, no complaint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from blip2sweep.reporting.html import build_report, safe_json
from blip2sweep.reporting.source import Source, load_source
from tests.reporting.browser import chromium, errors, open_report, requests, wait
from tests.synthetic import HOSTILE, build, grid

pytestmark = [pytest.mark.xdist_group("chromium"), pytest.mark.thorough]
SIX = ("dropoff", "frontier", "blocks", "map", "shapley", "methods")


def said(cell: int, kept: float) -> list[str]:
    """The first 40 samples are hostile; the 41st says the same in every cell."""
    del kept
    return [
        HOSTILE[(cell + i) % len(HOSTILE)] if i < 40 else "the same" if i == 40 else f"cell {cell} says {i}"
        for i in range(200)
    ]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Source]:
    folder = tmp_path_factory.mktemp("report")
    build(folder, grid(), texts=said)
    source = load_source(folder)
    path = folder / "page with spaces.html"
    build_report(source, path)
    return path, source


@pytest.fixture(scope="module")
def page(report: tuple[Path, Source], tmp_path_factory: pytest.TempPathFactory) -> Any:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        open_report(driver, report[0])
        yield driver


def test_every_figure_is_drawn_unprompted_without_network_or_complaint(page: Any, report: tuple[Path, Source]) -> None:
    for name in SIX:
        points = f"document.querySelectorAll('#plot-{name} .plot-container .point, #plot-{name} .hm image, #plot-{name} .hm').length"
        assert page.execute_script(f"return {points}") > 0, name
    colours = """const c = document.querySelector('#plot-view3d canvas'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
                 return new Set(Array.from({length: d.length / 4}, (_, i) => d[4*i] * 65536 + d[4*i+1] * 256 + d[4*i+2])).size"""
    assert page.execute_script(colours) > 20
    assert page.execute_script("return document.querySelectorAll('.sentences li').length") == 5
    assert requests(page) == {report[0].as_uri()}
    assert errors(page) == []
    paint = page.execute_script("return performance.getEntriesByName('first-contentful-paint')[0].startTime")
    assert paint < 1500


def test_each_figure_has_its_csv(page: Any, report: tuple[Path, Source]) -> None:
    folder = report[0].with_name("page with spaces-data")
    for name in (*SIX, "view3d"):
        frame = pd.read_csv(folder / f"{name}.csv")
        assert len(frame) == page.execute_script(f"return rows(REPORT.figures['{name}']).length") > 0
    text = page.execute_script("return csv(REPORT.figures.dropoff)")
    assert text.splitlines()[0].startswith("key,setting,line,parts,width")
    assert page.execute_script("return csv({a: ['x\"y,\\nz', null]})") == 'a\n"x""y,\nz"\n'


def test_filters_and_sorting_of_cells(page: Any) -> None:
    count = "document.getElementById('cell-count').textContent"
    assert page.execute_script(f"return {count}") == "113 of 113 cells, first 100 shown"
    page.execute_script(
        """const s = document.querySelectorAll('#cell-tools select')[1]; s.value = 'gptq/channel'; s.dispatchEvent(new Event('change'))"""
    )
    assert page.execute_script(f"return {count}") == "35 of 113 cells"
    page.execute_script(
        """const s = document.getElementById('cell-search'); s.value = 'LLM:all:all=gptq2'; s.dispatchEvent(new Event('input'))"""
    )
    assert page.execute_script(f"return {count}") == "4 of 113 cells"
    drops = "[...document.querySelectorAll('#cell-table tbody tr')].map(r => parseFloat(r.cells[5].textContent.replace('−', '-')))"
    page.execute_script(
        "[...document.querySelectorAll('#cell-table th button')].find(b => b.textContent === 'drop').click()"
    )
    assert page.execute_script(f"return {drops}") == sorted(page.execute_script(f"return {drops}"))
    page.execute_script(
        "for (const s of document.querySelectorAll('#cell-tools select')) { s.value = ''; s.dispatchEvent(new Event('change')) }"
    )


def test_the_drop_off_figure_switches_lines(page: Any) -> None:
    lines = "Plotly.d3 ? 0 : document.getElementById('plot-dropoff').data.length"
    assert page.execute_script(f"return {lines}") == 14  # seven sets of parts, two methods
    page.execute_script(
        "const s = document.querySelector('#tools-dropoff select'); s.value = 'vit'; s.dispatchEvent(new Event('change'))"
    )
    assert page.execute_script(f"return {lines}") > 2
    page.execute_script(
        "const s = document.querySelector('#tools-dropoff select'); s.value = ''; s.dispatchEvent(new Event('change'))"
    )


def test_outputs_switch_and_hostile_text_stays_text(page: Any) -> None:
    page.execute_script("document.getElementById('captions').scrollIntoView()")
    wait(page, "document.getElementById('outputs') !== null")
    page.execute_script(
        "for (const s of document.querySelectorAll('#browser select')) { s.value = s === document.querySelectorAll('#browser select')[0] ? 'all' : ''; s.dispatchEvent(new Event('change')) }"
    )
    where = "document.getElementById('sample-at').textContent"
    assert page.execute_script(f"return {where}") == "1 of 200"
    seen: set[str] = set()
    for _ in range(len(HOSTILE)):
        seen |= set(
            page.execute_script("return [...document.querySelectorAll('#outputs .output')].map(e => e.textContent)")
        )
        page.find_element("id", "next").click()
    assert page.execute_script(f"return {where}") == f"{len(HOSTILE) + 1} of 200"
    for text in HOSTILE:
        assert (text or "(empty)") in seen, text[:40]
    assert page.execute_script("return window.hacked") is None
    assert page.execute_script("return document.querySelectorAll('#outputs script, #outputs img').length") == 0
    wide = "document.documentElement.scrollWidth <= window.innerWidth"
    assert page.execute_script(f"return {wide}")  # 10 kB in one word scrolls inside its box
    assert errors(page) == []
    page.execute_script(
        "const s = document.querySelectorAll('#browser select')[1]; s.value = 'all'; s.dispatchEvent(new Event('change'))"
    )
    first = page.execute_script(
        "return outputs.samples.length ? document.querySelector('#sample .sample').textContent : ''"
    )
    page.execute_script(
        "const f = document.getElementById('find'); f.value = '1040'; f.nextSibling; f.parentElement.nextSibling.click()"
    )
    assert "image 1040" in page.execute_script("return document.querySelector('#sample .sample').textContent")
    assert first.startswith("image 1")


def test_theme_follows_the_system_and_the_button(report: tuple[Path, Source], tmp_path: Path) -> None:
    with chromium(tmp_path, dark=True) as driver:
        open_report(driver, report[0])
        dark = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        drawn = driver.execute_script("return document.querySelector('#plot-dropoff .main-svg').style.background")
        assert dark == drawn == "rgb(21, 23, 27)"
        driver.find_element("id", "theme").click()
        wait(driver, "document.body.dataset.drawn === '2'")
        assert driver.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert errors(driver) == []


def test_on_a_phone_nothing_sticks_out(report: tuple[Path, Source], tmp_path: Path) -> None:
    with chromium(tmp_path, 390, 844, phone=True) as driver:
        open_report(driver, report[0])
        assert driver.execute_script("return document.documentElement.scrollWidth") == 390
        assert driver.execute_script("return document.querySelector('#plot-dropoff .main-svg').clientWidth") <= 390
        assert errors(driver) == []


def test_everything_is_reached_with_the_keyboard(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    page.execute_script("document.body.focus(); window.scrollTo(0, 0)")
    before = page.execute_script("return [turn.around, turn.up]")
    canvas = page.find_element("css selector", "#plot-view3d canvas")
    page.execute_script("arguments[0].focus()", canvas)
    canvas.send_keys(Keys.ARROW_LEFT, Keys.ARROW_UP)
    assert page.execute_script("return [turn.around, turn.up]") != before
    wanted = "a[href], button, select, input, summary, canvas, .scroll#cell-table"
    stuck = page.execute_script(f"return [...document.querySelectorAll('{wanted}')].filter(e => e.tabIndex < 0).length")
    assert stuck == 0
    unnamed = "[...document.querySelectorAll('select, input')].filter(e => !e.closest('label')).length"
    assert page.execute_script(f"return {unnamed}") == 0


def test_json_cannot_end_its_script() -> None:
    assert "<" not in safe_json({"a": "</script><!--"})


def test_text_that_looks_like_the_template_is_not_filled_in(report: tuple[Path, Source]) -> None:
    assert report[0].read_text().count("const REPORT") == 1
