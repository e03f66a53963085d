"""What the figures say of themselves: captions that fit the data, panels that can be drawn, pictures of any sweep."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from blip2sweep.reporting.captions import captions
from blip2sweep.reporting.figure import Figure
from blip2sweep.reporting.figures import figures
from blip2sweep.reporting.html import build_report
from blip2sweep.reporting.source import Source, load_source
from blip2sweep.reporting.static import write_static
from tests.synthetic import build, entry, whole

PARTS = ("vit", "qformer", "llm")


def rewrite(folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Change the table of the planted sweep; without journals it is what a report is made from."""
    path = folder / "sweeps/planted/table.parquet"
    change(pd.read_parquet(path)).to_parquet(path)
    shutil.rmtree(folder / "journals")


def without_cider(table: pd.DataFrame) -> pd.DataFrame:
    return table[[c for c in table if "cider" not in c]]


def made(folder: Path) -> dict[str, Figure]:
    return {f.name: f for f in figures(load_source(folder))}


def test_a_map_without_a_panel_of_several_cells_is_said_to_be_missing(tmp_path: Path) -> None:
    """part=all quant.bits=2,3,4,6,8: every Q-Former width has one cell."""
    build(tmp_path, [whole(PARTS, b) for b in (2, 3, 4, 6, 8)])
    found = made(tmp_path)["map"]
    assert found.empty
    path = tmp_path / "report.html"
    build_report(load_source(tmp_path), path)
    text = path.read_text()
    assert re.search(
        r'shows all sweeps together\): <span class="command"><code>python -m blip2sweep -m [^<]*output_dir=\S+ \+study=part_wise',
        text,
    )
    assert "map.png" not in [p.name for p in write_static([found], tmp_path, "png", "CIDEr")]


def test_commands_of_missing_figures_are_of_the_same_model_task_and_samples(tmp_path: Path) -> None:
    build(tmp_path, [whole(["vit"], 4)])
    words = "model=tiny task=shapes_vqa task.limit=60 model.dtype=bfloat16"
    source = replace(load_source(tmp_path), command=f"-m {words} part=vit quant.bits=4 sweep_name=a")
    for figure in figures(source):
        assert figure.missing.startswith(f"python -m blip2sweep -m {words} output_dir={tmp_path} ")
        assert "sweep_name" not in figure.missing
    varied = replace(source, command="-m model=tiny task=shapes_vqa,shapes_caption task.limit=10,20")
    base = source.cells[source.cells["part"] == "none"].iloc[0]
    assert f"model={base['model']} task={base['task']} output_dir=" in figures(varied)[0].missing


def test_a_map_of_a_second_method_is_drawn_where_the_first_has_no_panel(tmp_path: Path) -> None:
    cells = [whole(PARTS, b, "gptq") for b in (2, 4)]
    cells += [[*whole(["vit"], v), *whole(["llm"], t)] for v in (4, 2) for t in (4, 2)]
    build(tmp_path, cells)
    assert write_static([made(tmp_path)["map"]], tmp_path, "png", "CIDEr")


def two_methods_on_mixed_widths() -> list[list[dict[str, object]]]:
    pairs = ((4, 8), (8, 4), (2, 4))
    return [[*whole(["vit"], v, m), *whole(["llm"], t, m)] for v, t in pairs for m in ("rtn", "gptq")]


def test_pictures_of_two_methods_on_mixed_widths(tmp_path: Path) -> None:
    build(tmp_path, two_methods_on_mixed_widths())
    found = made(tmp_path)["methods"]
    assert found.data["label"].tolist() == ["vit 4 + llm 8 bits", "vit 8 + llm 4 bits", "vit 2 + llm 4 bits"]
    assert [p.name for p in write_static([found], tmp_path, "png", "CIDEr")] == ["methods.png"]


def test_what_shapley_values_lack_is_said_beside_those_that_are_there(tmp_path: Path) -> None:
    unions = [[p for i, p in enumerate(PARTS) if mask >> i & 1] for mask in range(1, 8)]
    build(tmp_path, [*(whole(u, 4) for u in unions), whole(PARTS, 2), whole(["vit"], 2)])
    found = made(tmp_path)["shapley"]
    assert set(found.data["width"]) == {4}
    assert (
        "Left out: Shapley values of vit:all:all=2; qformer:all:all=2; llm:all:all=2 need all 8 cells" in found.caption
    )


def test_the_frontier_says_what_was_chosen_on_what(tmp_path: Path) -> None:
    build(tmp_path / "own", [whole(["vit"], b) for b in (2, 4, 8)])
    found = made(tmp_path / "own")["frontier"]
    assert "chosen on one half of the images" in found.caption
    assert set(found.data["by"]) == {"bits_per_weight", "model_bytes"}
    assert all(isinstance(like, bool) for like in found.data["like_baseline"].tolist())


def test_scores_without_outputs_are_neither_held_out_nor_told_apart(tmp_path: Path) -> None:
    from blip2sweep.commands.import_results import import_what
    from blip2sweep.importing.table_csv import Options

    (tmp_path / "mine.csv").write_text("part,bits,cider\nnone,,1.2\nvit,8,1.19\nvit,4,1.1\n")
    import_what("csv", tmp_path / "mine.csv", tmp_path / "outputs", "cider", Options("tiny"))
    found = made(tmp_path / "outputs")["frontier"]
    assert "half of the images" not in found.caption
    assert "no interval" in found.caption
    assert found.data["like_baseline"].tolist() == [None] * len(found.data)
    assert len(write_static([found], tmp_path, "png", "CIDEr")) == 1


def test_cells_without_outputs_that_do_not_compete_are_counted(tmp_path: Path) -> None:
    build(tmp_path, [whole(["vit"], b) for b in (2, 3, 4, 8)])
    rewrite(tmp_path, lambda table: table.assign(predictions=table["predictions"].where(~table.index.isin([2, 3]))))
    assert "2 of 4 cells have no outputs and are left out." in made(tmp_path)["frontier"].caption


def many(folder: Path, settings: int) -> Source:
    """Whole cells, unions at one width, single blocks and a second row for the likelihood, in as many settings."""
    unions = [[p for i, p in enumerate(PARTS) if mask >> i & 1] for mask in range(1, 8)]
    cells = []
    for i in range(settings):
        scheme = {"strategy": "group", "group_size": 2 + i}
        cells += [[entry(f"{p}:all:all", b, **scheme) for p in u] for u in unions for b in (8, 2)]
        cells += [[entry(f"vit:{block}:all", 4, **scheme)] for block in range(6)]
    build(folder, cells, n=60)
    return load_source(folder)


def test_latency_is_a_size_where_packed_kernels_ran(tmp_path: Path) -> None:
    build(tmp_path, [whole(["vit"], b) for b in (2, 4, 8)])
    rewrite(tmp_path, lambda table: table.assign(seconds_batch_1=[np.nan, np.nan, 0.02, 0.03]))
    found = made(tmp_path)["frontier"]
    own = found.data[found.data["by"] == "seconds_batch_1"]
    assert own["seconds_batch_1"].tolist() == [0.02, 0.03]
    assert write_static([found], tmp_path, "png", "CIDEr")


def test_the_picture_of_blocks_has_a_second_row_for_the_likelihood(tmp_path: Path) -> None:
    import matplotlib.image

    build(tmp_path, [[entry(f"vit:{i}:all", 3)] for i in range(6)])
    found, high = made(tmp_path)["blocks"], []
    for nll in (found.data["nll"], np.nan):
        found.data["nll"] = nll
        write_static([found], tmp_path, "png", "CIDEr")
        high.append(matplotlib.image.imread(tmp_path / "blocks.png").shape[0])
    assert high[0] > 1.3 * high[1]


@pytest.mark.parametrize("settings", [8, 22])
def test_pictures_of_many_settings(tmp_path: Path, settings: int) -> None:
    """22 panels side by side had no room; now they come in rows, and what is left out is said."""
    import matplotlib.image

    written = write_static(figures(many(tmp_path, settings)), tmp_path, "png", "CIDEr")
    assert {"dropoff.png", "shapley.png", "blocks.png"} <= {p.name for p in written}
    high, wide = matplotlib.image.imread(tmp_path / "dropoff.png").shape[:2]
    assert high > 0.5 * wide


def test_the_likelihood_is_that_of_a_cell_and_not_of_its_words(tmp_path: Path) -> None:
    build(
        tmp_path,
        [whole(["vit"], b) for b in (2, 8)],
        texts=lambda cell, kept: ["the same", *[f"{cell} {i}" for i in range(199)]],
    )
    rewrite(tmp_path, without_cider)
    told = captions(load_source(tmp_path))
    assert told is not None
    assert told["sign"] == -1
    assert [len(t) for t in told["texts"][:2]] == [1, 3]
    first = [own[0] for own in told["own"]]
    widths = [c["width"] for c in told["cells"]]
    assert widths == [None, 2, 8]
    assert first[1] > first[2] + 0.5 > first[0]
    assert not np.isnan(np.array(told["own"], dtype=float)).any()


def test_suggested_commands_have_one_word_for_a_part(tmp_path: Path) -> None:
    """The sweep spoke of a role; what is suggested speaks of the model's own names throughout."""
    build(tmp_path, [whole(["vit"], 4)])
    words = "model=tiny model.dtype_per_part.vision=float16"
    source = replace(load_source(tmp_path), command=f"-m {words} part=vision quant.bits=4")
    for figure in figures(source):
        assert "model=tiny model.dtype_per_part.vit=float16 " in figure.missing
        assert "vision" not in figure.missing
    found = {f.name: f.missing for f in figures(source)}
    assert found["dropoff"].endswith("quant.bits=2,3,4,6,8 part=vit,qformer,llm,all")
    assert found["shapley"].endswith("part=vit,qformer,llm,vit+qformer,vit+llm,qformer+llm,all")
    assert "per_part.vit.bits=3,4,8,none per_part.qformer.bits=4,none per_part.llm.bits=3,4,8,none" in found["prices"]
