"""The page where a sweep is not like the others: many settings, one cell, failures, a figure that throws, an old browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from blip2sweep.reporting.html import build_report
from blip2sweep.reporting.source import load_source
from tests.reporting.browser import chromium, errors, open_report, wait
from tests.reporting.test_figures import many, rewrite, without_cider
from tests.synthetic import HOSTILE, build, entry, grid, whole

pytestmark = [pytest.mark.xdist_group("chromium"), pytest.mark.thorough]
# Pairs of panels of one figure whose areas overlap, of all figures; and what sticks out of the page.
OVERLAPS = """return [...document.querySelectorAll('.plot')].filter(p => p._fullLayout).flatMap(p => {
  const l = p._fullLayout, axes = Object.keys(l._plots).map(id => l._plots[id]).map(s => [s.xaxis.domain, s.yaxis.domain]);
  return axes.flatMap(([ax, ay], i) => axes.slice(i + 1).filter(([bx, by]) =>
    ax[0] < bx[1] - 1e-6 && bx[0] < ax[1] - 1e-6 && ay[0] < by[1] - 1e-6 && by[0] < ay[1] - 1e-6).map(() => p.id)) })"""
NARROWEST = """return Math.min(...[...document.querySelectorAll('.plot')].filter(p => p._fullLayout).flatMap(p =>
  Object.values(p._fullLayout._plots).flatMap(s => [s.xaxis._length, s.yaxis._length])))"""


def page_of(folder: Path) -> Path:
    path = folder / "report.html"
    build_report(load_source(folder), path)
    return path


@pytest.fixture(scope="module")
def twelve(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("twelve")
    many(folder, 12)
    return page_of(folder)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with chromium(tmp_path_factory.mktemp("profile"), 1440, 900) as opened:
        yield opened


def test_twelve_settings_on_a_laptop(driver: Any, twelve: Path) -> None:
    open_report(driver, twelve)
    assert (
        driver.execute_script("return Object.keys(document.getElementById('plot-dropoff')._fullLayout._plots).length")
        == 12
    )
    assert driver.execute_script(OVERLAPS) == []
    assert driver.execute_script(NARROWEST) > 90
    assert errors(driver) == []


def test_twelve_settings_on_a_phone(twelve: Path, tmp_path: Path) -> None:
    with chromium(tmp_path, 390, 844, phone=True) as phone:
        open_report(phone, twelve)
        assert phone.execute_script(OVERLAPS) == []
        assert phone.execute_script(NARROWEST) > 90
        assert phone.execute_script("return document.documentElement.scrollWidth") == 390
        titles = "[...document.querySelectorAll('#plot-blocks .ytitle, #plot-blocks [class^=y][class$=title]')].map(t => t.textContent)"
        assert "ΔNLL" in phone.execute_script(f"return {titles}")
        assert errors(phone) == []


def test_a_long_legend_leaves_room_for_the_lines(tmp_path: Path) -> None:
    blocks = (
        "all",
        "first",
        "middle",
        "last",
        "first+middle",
        "middle+last",
        "first+last",
        "0",
        "1",
        "2",
        "3",
        "4",
        "5",
    )
    build(tmp_path, [[entry(f"vit:{b}:{k}", 4)] for b in blocks for k in ("attention", "mlp")])
    path = page_of(tmp_path)
    with chromium(tmp_path / "profile", 390, 844, phone=True) as phone:
        open_report(phone, path)
        phone.execute_script(
            "const s = document.querySelector('#tools-dropoff select'); s.value = 'vit'; s.dispatchEvent(new Event('change'))"
        )
        assert phone.execute_script("return document.getElementById('plot-dropoff').data.length") == 26
        assert phone.execute_script(NARROWEST) > 150
        assert errors(phone) == []


def test_the_frontier_shows_bytes_too(driver: Any, tmp_path: Path) -> None:
    build(tmp_path, grid())
    open_report(driver, page_of(tmp_path))
    driver.execute_script(
        "const s = document.querySelector('#tools-frontier select'); s.value = 'model_bytes'; s.dispatchEvent(new Event('change'))"
    )
    title = "return document.getElementById('plot-frontier')._fullLayout.xaxis.title.text"
    assert driver.execute_script(title) == "bytes, whole model"
    assert driver.execute_script("return Math.min(...document.getElementById('plot-frontier').data[0].x)") > 100_000


def test_panels_that_are_left_out_are_said(driver: Any, tmp_path: Path) -> None:
    many(tmp_path, 22)
    open_report(driver, page_of(tmp_path))
    assert "The first 12 of 22 panels" in driver.execute_script(
        "return document.getElementById('note-dropoff').textContent"
    )
    assert driver.execute_script(OVERLAPS) == []


def test_a_figure_that_throws_does_not_stop_the_others(driver: Any, tmp_path: Path) -> None:
    build(tmp_path, grid())
    open_report(driver, page_of(tmp_path))
    driver.execute_script("FIGURES.frontier = () => { throw new Error('planted') }; drawAll()")
    wait(driver, "document.body.dataset.drawn === '2'")
    text = driver.execute_script("return document.getElementById('note-frontier').textContent")
    assert text == "This figure could not be drawn (planted); its data is below."
    assert driver.execute_script("return document.querySelectorAll('#plot-methods .point').length") > 0
    driver.execute_script("document.getElementById('captions').scrollIntoView()")
    wait(driver, "document.getElementById('outputs') !== null")


def test_a_browser_without_decompression_still_shows_text_and_tables(driver: Any, tmp_path: Path) -> None:
    build(tmp_path, grid())
    path = page_of(tmp_path)
    path.write_text(path.read_text().replace("<head>", "<head><script>delete window.DecompressionStream</script>", 1))
    open_report(driver, path)
    assert "no DecompressionStream" in driver.execute_script(
        "return document.getElementById('note-dropoff').textContent"
    )
    assert driver.execute_script("return document.querySelectorAll('#cell-table tbody tr').length") == 100
    assert driver.execute_script("return document.querySelectorAll('#plot-view3d canvas').length") == 1
    driver.execute_script("document.getElementById('captions').scrollIntoView()")
    wait(driver, "document.getElementById('browser').textContent.includes('could not be shown')")
    assert errors(driver) == []


def test_the_baseline_can_be_filtered_and_tables_go_on(driver: Any, tmp_path: Path) -> None:
    build(tmp_path, grid())
    open_report(driver, page_of(tmp_path))
    count = "return document.getElementById('cell-count').textContent"
    shown = "return document.querySelectorAll('#cell-table tbody tr').length"
    driver.execute_script(
        "const s = document.querySelector('#cell-tools select'); s.value = 'baseline'; s.dispatchEvent(new Event('change'))"
    )
    assert driver.execute_script(count) == "1 of 113 cells"
    driver.execute_script(
        "const s = document.querySelector('#cell-tools select'); s.value = ''; s.dispatchEvent(new Event('change'))"
    )
    assert driver.execute_script(shown) == 100
    driver.execute_script("document.getElementById('cell-more').click()")
    assert driver.execute_script(shown) == 113
    table = "const [t, more] = dataTable({a: [...Array(700).keys()]}); const n = () => t.querySelectorAll('tbody tr').length;"
    steps = "const seen = [n()]; while (!more.hidden) { more.click(); seen.push(n()) } return seen"
    assert driver.execute_script(table + steps) == [300, 600, 700]


def test_a_page_of_one_cell(driver: Any, tmp_path: Path) -> None:
    build(tmp_path, [])
    open_report(driver, page_of(tmp_path))
    assert driver.execute_script("return document.getElementById('cell-count').textContent") == "1 of 1 cells"
    driver.execute_script("document.getElementById('captions').scrollIntoView()")
    wait(driver, "document.getElementById('outputs') !== null")
    assert errors(driver) == []


def test_failures_with_hostile_errors_are_text(driver: Any, tmp_path: Path) -> None:
    build(tmp_path, [whole(["vit"], 4)])
    failed = pd.DataFrame({"key": f"f{i}", "status": "failed", "failure": "crash", "recipe": text[:50], "error": text,
                           "stale": False} for i, text in enumerate(HOSTILE * 40))  # fmt: skip
    rewrite(tmp_path, lambda table: pd.concat([table, failed]))
    open_report(driver, page_of(tmp_path))
    said = driver.execute_script(
        "return [...document.querySelectorAll('#failures tbody tr')].map(r => r.cells[2].textContent)"
    )
    assert said[: len(HOSTILE)] == [text[:500] for text in HOSTILE]
    assert len(said) == 200
    assert "The first 200 of 280" in driver.execute_script("return document.getElementById('failures').textContent")
    assert driver.execute_script("return window.hacked") is None
    assert driver.execute_script("return document.querySelectorAll('#failures script, #failures img').length") == 0
    assert driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert errors(driver) == []


def test_a_cell_whose_nll_rose_is_marked_worse(driver: Any, tmp_path: Path) -> None:
    build(tmp_path, [whole(["vit"], b) for b in (2, 8)])
    rewrite(tmp_path, without_cider)
    open_report(driver, page_of(tmp_path))
    driver.execute_script("document.getElementById('captions').scrollIntoView()")
    wait(driver, "document.getElementById('outputs') !== null")
    worse = "return [...document.querySelectorAll('#outputs .worse')].map(e => e.title)"
    assert driver.execute_script(worse) == ["vit:all:all=rtn2/channel"]
