"""The page of several models in a real Chromium: panels by role, the choice of a model, hostile names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from blip2sweep.models.shipped import model_anatomy
from blip2sweep.reporting.models_page import write_models_page
from blip2sweep.reporting.sources import load_sources
from tests.reporting.browser import chromium, errors, open_report, requests, wait
from tests.reporting.two_models import BLIP2, LLAVA, cells, sweep

pytestmark = [pytest.mark.xdist_group("chromium"), pytest.mark.thorough]
HOSTILE = "</script><img src=x onerror='window.hacked=1'>{{scripts}}"
PLOT = "document.getElementById('plot-models')"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    models = {"tiny": cells(BLIP2), "tiny-llava": cells(LLAVA), HOSTILE: cells(LLAVA[:1], [4])}
    sweep(folder, models, {HOSTILE: "tiny-llava"})
    sources = load_sources(folder)
    # A folder's name may be anything; no pack of a planted sweep says what its parts are.
    sources.models[2].__dict__["anatomy"] = model_anatomy("tiny-llava")
    found = folder / "page.html"
    written = write_models_page(sources, found)
    assert all(w.folder.resolve().is_relative_to(folder.resolve()) for w in written)
    return found


@pytest.fixture(scope="module")
def page(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        open_report(driver, path)
        yield driver


def test_a_panel_a_role_a_line_a_model_and_the_first_models_figures(page: Any, path: Path) -> None:
    titles = f"{PLOT}._fullLayout.annotations.map(a => a.text)"
    assert page.execute_script(f"return {titles}") == [
        f"<b>{r}</b>" for r in ("vision", "connector", "language", "all")
    ]
    names = page.execute_script(f"return {PLOT}.data.map(t => t.name)")
    assert len(names) == 9  # the third model was run in one role
    lines = page.execute_script(f"return {PLOT}.data[1].y")
    rows = page.execute_script(
        "return rows(COMPARED.data).filter(r => r.role === 'vision' && r.model === 'tiny-llava')"
    )
    assert lines == [r["drop"] for r in rows]
    high, low = page.execute_script(f"return {PLOT}._fullLayout.yaxis.range")
    assert high > max(lines) > low  # downwards
    assert page.execute_script("return document.querySelectorAll('#models tbody tr').length") == 25
    assert page.execute_script("return document.querySelectorAll('#plot-dropoff .point').length") > 0
    assert page.execute_script("return new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size") == (
        page.execute_script("return document.querySelectorAll('[id]').length")
    )
    assert requests(page) == {path.as_uri()}
    assert errors(page) == []


def test_names_of_models_stay_text(page: Any) -> None:
    buttons = page.execute_script("return [...document.querySelectorAll('[data-model]')].map(b => b.textContent)")
    assert buttons == ["tiny", "tiny-llava", HOSTILE]
    assert page.execute_script("return window.hacked") is None
    assert page.execute_script("return document.querySelectorAll('#main img, #main script').length") == 0
    assert HOSTILE in page.execute_script("return document.querySelector('#models table').textContent")
    legend = page.execute_script(f"return [...{PLOT}.querySelectorAll('.legendtext')].map(t => t.textContent)")
    assert HOSTILE in legend


def test_a_button_shows_the_analysis_of_its_model(page: Any) -> None:
    def choose(i: int, part: str) -> None:
        before = int(page.execute_script("return document.body.dataset.drawn"))
        page.execute_script(f"document.querySelectorAll('[data-model]')[{i}].click()")
        wait(page, f"REPORT.parts[0] === '{part}' && Number(document.body.dataset.drawn) > {before}")

    lines = "[...new Set(document.getElementById('plot-dropoff').data.map(t => t.name))]"
    choose(1, "vision")
    assert page.execute_script(f"return {lines}") == ["vision", "connector", "language", "vision+connector+language"]
    assert page.execute_script("return document.getElementById('cell-count').textContent") == "13 of 13 cells"
    pressed = "[...document.querySelectorAll('[data-model]')].map(b => b.getAttribute('aria-pressed'))"
    assert page.execute_script(f"return {pressed}") == ["false", "true", "false"]
    page.execute_script("document.getElementById('captions').scrollIntoView()")
    wait(page, "document.getElementById('outputs') !== null")
    assert "vision" in page.execute_script("return document.getElementById('outputs').textContent")
    page.execute_script("scrollTo(0, 0)")
    choose(0, "vit")
    assert page.execute_script(f"return {lines}") == ["vit", "qformer", "llm", "vit+qformer+llm"]
    wait(page, "outputs === null || document.getElementById('outputs') !== null")
    page.execute_script("document.getElementById('captions').scrollIntoView()")
    wait(page, "document.getElementById('outputs') !== null && outputs.cells.some(c => c.parts === 'vit')")
    assert page.execute_script(f"return {PLOT}.data.length") == 9  # the comparison stays
    choose(2, "vision")
    assert page.execute_script("return document.getElementById('cell-count').textContent") == "2 of 2 cells"
    assert page.execute_script("return window.hacked") is None
    text = page.execute_script("return csv(dataOf('models'))")
    assert text.startswith("role,setting,width,model,baseline,value,drop,")
    assert page.execute_script("return csv(dataOf('dropoff'))").count("\n") == 1
    assert errors(page) == []


def test_on_a_dark_phone_nothing_sticks_out(path: Path, tmp_path: Path) -> None:
    with chromium(tmp_path, 390, 844, dark=True, phone=True) as driver:
        open_report(driver, path)
        assert driver.execute_script("return document.documentElement.scrollWidth") == 390
        assert driver.execute_script(f"return {PLOT}.querySelector('.main-svg').style.background") == "rgb(21, 23, 27)"
        stuck = "[...document.querySelectorAll('a[href], button, select, summary')].filter(e => e.tabIndex < 0).length"
        assert driver.execute_script(f"return {stuck}") == 0
        assert errors(driver) == []
