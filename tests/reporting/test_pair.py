"""`report A B`: what two have in common, what is known of their difference, and what is refused in one line."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import blip2sweep as api
from blip2sweep.analysis import difference
from blip2sweep.analysis.draws import load_draws
from blip2sweep.commands.report import check_asked, report
from blip2sweep.errors import UserError
from blip2sweep.reporting.pair import load_pair
from blip2sweep.reporting.side_by_side import side_by_side
from tests.command_line import blip2sweep, refused
from tests.reporting.two_models import BLIP2, LLAVA, cells, sweep
from tests.synthetic import build, damage, entry, source, whole

WEIGHTS = {"vit": 1.0, "llm": 0.5}
NONE: dict[str, str | None] = {}


def lost(listed: Any) -> float:
    """GPTQ loses half of what RTN does."""
    return damage(listed, {p: w * (0.5 if listed[0]["method"] == "gptq" else 1) for p, w in WEIGHTS.items()})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pair")
    for name, method, bits in (("old", "rtn", (8, 4, 3)), ("new", "gptq", (4, 3)), ("more", "rtn", (3, 2))):
        build(out, [whole([p], b, method) for p in WEIGHTS for b in bits], name=name, n=60, values=lost, jitter=0.02)
    build(out, [[entry(f"vit:{i}:all", 3)] for i in range(2)], name="blocks", n=60)
    build(out, [whole(["vit"], 4)], name="fewer", n=20, made_from=source(n=20))
    return out


@pytest.mark.thorough
def test_python_writes_the_page_of_two(folder: Path) -> None:
    page = api.report(["old", "new"], folder)
    assert page == folder / "report-old-and-new.html"
    assert "old and new side by side" in page.read_text(encoding="utf-8")


def test_differences_are_paired_where_both_have_one_baseline(folder: Path) -> None:
    pair = load_pair(folder, ["old", "new"], NONE)
    compared = side_by_side(pair)
    data = compared.figure.data
    assert [*dict.fromkeys(zip(data["role"], data["width"], strict=True))] == [
        ("vit", 4),
        ("vit", 3),
        ("llm", 4),
        ("llm", 3),
    ]
    assert set(data["setting"]) == {"rtn/channel and gptq/channel"}
    assert dict(zip(data["model"], data["method"], strict=True)) == {"old": "rtn/channel", "new": "gptq/channel"}
    keys = data[(data["role"] == "vit") & (data["width"] == 3)].set_index("model")["key"]
    both = pd.concat([s.cells for s in pair.models]).drop_duplicates("key")
    draws = load_draws(folder, both, "cider", resampled=False)
    known = difference(both, "cider", draws, keys["new"], keys["old"])
    assert known.high < 0
    told = f"{known.value:.3f} [{known.low:.3f}, {known.high:.3f}]".replace("-", "−")
    assert told in compared.figure.table
    assert (
        "of 4 pairs of different cells at the same parts and width new loses significantly less CIDEr than old in 4, more in 0"
        in compared.notes[0]
    )


@pytest.mark.thorough
def test_one_cell_of_both_is_no_comparison(folder: Path) -> None:
    compared = side_by_side(load_pair(folder, ["old", "more"], NONE))
    assert compared.figure.table.count("<td>the same cell</td>") == 2
    assert compared.notes[0].startswith("of 0 pairs of different cells")
    assert compared.notes[1].startswith("2 pairs are one and the same cell")


@pytest.mark.thorough
def test_the_page_has_both_and_lies_in_the_folder_of_results(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "outputs")
    lines = report(load_pair(tmp_path / "outputs", ["old", "new"], NONE), None, png=True, pdf=False)
    path = tmp_path / "outputs/report-old-and-new.html"
    assert lines[0].startswith(f"wrote {path} (")
    text = path.read_text()
    assert "<h1>old and new side by side, of tiny on shapes_caption</h1>" in text
    assert re.findall(r"<button[^>]* data-model [^>]*>(\w+)<", text) == ["old", "new"]
    data = path.with_name("report-old-and-new-data")
    assert len(pd.read_csv(data / "models.csv")) == 8
    assert (data / "models.png").stat().st_size > 10_000
    assert (data / "old/dropoff.csv").exists()


def test_two_models_of_the_ledger_are_compared_by_role_and_not_tested(tmp_path: Path) -> None:
    sweep(tmp_path, {"tiny": cells(BLIP2), "tiny-llava": cells(LLAVA)})
    pair = load_pair(tmp_path, ["tiny-llava", "tiny"], NONE)
    compared = side_by_side(pair)
    assert list(compared.figure.data["role"].unique()) == ["vision", "connector", "language", "all"]
    assert compared.notes[0] == "each is compared with its own baseline, and the two are not tested against each other"
    assert "model differs: tiny-llava (tiny-llava), tiny (tiny)" in compared.notes
    assert "−" not in re.findall(r"<th[^>]*>([^<]*)</th>", compared.figure.table)[-1]


@pytest.mark.parametrize(("names", "said"), [
    (["old", "old"], "report old old: the same name twice; right: two sweeps or two models, or old alone"),
    (["old", "nwe"], "report old nwe: 'nwe' is no sweep and no model in "),
    (["nwe", "odl"], "report nwe odl: 'nwe' and 'odl' are no sweeps and no models in "),
    (["nwe", "old"], "did you mean 'new'? known: blocks, "),
    (["old", "new", "more"], "report old new more: 3 names; right: one sweep, or two to put them side by side"),
    (["old", "fewer"], "old and fewer were scored on different numbers of samples (60 and 20), so nothing can be compared"),
])  # fmt: skip
def test_two_that_cannot_be_meant_are_refused_in_one_line(folder: Path, names: list[str], said: str) -> None:
    with pytest.raises(UserError) as refusal:
        load_pair(folder, names, NONE)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_two_without_common_cells_write_nothing(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    with pytest.raises(
        UserError, match="old and blocks have no parts at one width in common, so nothing can be compared"
    ):
        report(load_pair(folder, ["old", "blocks"], NONE), page, png=False, pdf=False)
    assert not list(tmp_path.iterdir())


def test_a_name_of_several_models_is_refused_by_its_name(tmp_path: Path) -> None:
    sweep(tmp_path, {"tiny": cells(BLIP2, (4,)), "tiny-llava": cells(LLAVA, (4,))})
    with pytest.raises(UserError, match=r"^planted: cells of 2 kinds of model are not compared: .* --model tiny"):
        load_pair(tmp_path, ["planted", "planted-own-0"], NONE)
    with pytest.raises(UserError, match=r"^--model tiny: tiny-llava is a model already; right: without --model"):
        load_pair(tmp_path, ["planted-own-0", "tiny-llava"], {"model": "tiny"})


def test_two_are_neither_all_nor_sent() -> None:
    with pytest.raises(
        UserError,
        match=r"report a b --all --wandb: two are put side by side as they are; right: without --all and --wandb",
    ):
        check_asked(["a", "b"], "offline", True)


@pytest.mark.thorough
def test_the_verb_takes_two_names(folder: Path) -> None:
    refused(blip2sweep("report", "old", "old", "--output-dir", str(folder), cwd=folder), "the same name twice")
