"""A page that nobody scrolls: what is printed or taken by a headless browser has all figures, and none is cut."""

from __future__ import annotations

from typing import Any

import pytest

from blip2sweep.reporting.html import build_report
from blip2sweep.reporting.source import load_source
from tests.reporting.browser import chromium, errors, wait
from tests.synthetic import build, whole

pytestmark = [pytest.mark.xdist_group("chromium"), pytest.mark.thorough]
WIDTHS = (8, 6, 4, 3, 2)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("still")
    build(folder, [*(whole(["vit"], b) for b in WIDTHS), whole(["vit"], 4, "gptq"), whole(["vit"], 4, "awq")], n=30)
    build_report(load_source(folder), folder / "report.html")
    with chromium(tmp_path_factory.mktemp("profile"), 1300, 900) as driver:
        driver.get((folder / "report.html").as_uri())
        yield driver


def test_the_page_has_loaded_once_its_figures_are_drawn(page: Any) -> None:
    """`get` returns with the load event, as --screenshot and --print-to-pdf do; nothing is waited for here."""
    assert page.execute_script("return document.body.dataset.drawn") == "1"
    assert page.execute_script("return document.querySelectorAll('iframe').length") == 0
    assert errors(page) == []


def test_a_panel_of_one_point_has_one_tick(page: Any) -> None:
    axes = "const l = document.getElementById('plot-dropoff').layout"
    ticks = page.execute_script(f"{axes}; return ['xaxis', 'xaxis2', 'xaxis3'].map(a => l[a].ticktext)")
    assert ticks == [["4"], ["4"], [str(w) for w in WIDTHS]]
    ranges = page.execute_script(f"{axes}; return ['xaxis', 'xaxis2', 'xaxis3'].map(a => l[a].range)")
    assert ranges == [[-0.5, 4.5]] * 3


def test_the_printer_gets_the_figures_and_the_outputs(page: Any) -> None:
    print_it(page)
    assert page.execute_script("return document.querySelectorAll('#plot-frontier .point').length") > 0


def test_the_columns_of_five_widths_fit(page: Any) -> None:
    print_it(page)
    cut = "const s = document.getElementById('outputs').closest('.scroll'); return s.scrollWidth - s.clientWidth"
    assert page.execute_script(cut) <= 0


def print_it(page: Any) -> None:
    page.execute_script(
        "document.getElementById('plot-dropoff').replaceChildren(); dispatchEvent(new Event('beforeprint'))"
    )
    wait(page, "document.getElementById('outputs') !== null")
