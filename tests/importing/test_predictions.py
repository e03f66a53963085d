"""Texts of another server: scored on the same samples against the same baseline, a row of its own, or refused whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from blip2sweep.commands.import_results import import_what
from blip2sweep.commands.rescore import score_results
from blip2sweep.importing.table_csv import Options
from blip2sweep.reporting.figures import figures
from blip2sweep.reporting.short_table import short_table
from blip2sweep.reporting.source import Selection, select
from blip2sweep.results.collect import collect
from blip2sweep.results.ledger import Ledger
from tests.checkpoints import fails
from tests.command_line import blip2sweep
from tests.ledgers import jobs, launched, ran

Record = dict[str, Any]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[Record]]:
    """(a folder of results, the job of a cell in it, the cell's own outputs as somebody else's file has them)."""
    folder, these = (
        tmp_path_factory.mktemp("imported"),
        jobs("task=shapes_vqa", "task.limit=8", "part=llm", "quant.bits=4"),
    )
    launched(folder, these)
    ran(folder, these)
    score_results(folder, Ledger(folder).refresh().results())
    collect(folder, None)
    job = next(j for j in these if j["key"] != j["baseline"])
    samples = pd.read_parquet(folder / "samples.parquet")
    own = samples[samples["key"] == job["key"]]
    return folder, job, [{"id": int(i), "text": t} for i, t in zip(own["id"], own["text"], strict=True)]


def file(folder: Path, records: Sequence[Record], name: str = "theirs.jsonl") -> Path:
    path = folder / name
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, records)) + "\n")
    else:
        frame = pd.DataFrame(records)
        frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(path)
    return path


def imported(folder: Path, path: Path, like: str | None, *told: str) -> list[str]:
    return import_what("predictions", path, folder, "cider", Options(constants=told), like)


def row(folder: Path, key: str) -> pd.Series:
    table = pd.read_parquet(folder / "table.parquet").set_index("key")
    assert table.index.is_unique
    return table.loc[key]


def key_of(said: list[str]) -> str:
    return said[0].partition("as cell ")[2].partition(",")[0]


@pytest.mark.parametrize("name", ["theirs.jsonl", "again.csv", "again.parquet"])
def test_the_same_texts_have_the_same_scores_and_another_key(
    done: tuple[Path, dict[str, Any], list[Record]], tmp_path: Path, name: str
) -> None:
    folder, job, records = done
    path = file(tmp_path, [{**r, "latency_ms": 10.0 + i, "note": "x"} for i, r in enumerate(records[::-1])], name)
    said = imported(folder, path, job["key"][:6], "backend=vllm", "version=0.11", "device=H100")
    own, theirs = row(folder, job["key"]), row(folder, key_of(said))
    assert said[1] == "  columns that are not used: note"
    assert key_of(said) != job["key"]
    scores = [
        c for c in own.index if c.startswith(("vqa_accuracy", "drop_vqa", "baseline_vqa")) or c == "same_as_baseline"
    ]
    assert {"vqa_accuracy", "drop_vqa_accuracy", "drop_vqa_accuracy_low", "same_as_baseline"} <= {*scores}
    assert theirs[scores].to_dict() == own[scores].to_dict()
    assert (
        theirs[["recipe", "model_bytes", "baseline"]].to_dict() == own[["recipe", "model_bytes", "baseline"]].to_dict()
    )
    told = {"imported": "predictions", "imported_from": name, "like": job["key"], "backend": "vllm",
            "backend_options": "version=0.11", "latency_device": "H100", "latency_ms_median": 13.5,
            "latency_ms_p90": 16.3, "latency_samples": 8}  # fmt: skip
    assert theirs[list(told)].to_dict() == pytest.approx(told)
    before = (folder / "table.parquet").read_bytes(), len(pd.read_parquet(folder / "table.parquet"))
    assert key_of(imported(folder, path, job["key"], "device=H100", "backend=vllm", "version=0.11")) == key_of(said)
    assert len(pd.read_parquet(folder / "table.parquet")) == before[1]
    other = imported(folder, path, job["key"], f"backend={path.suffix[1:]}")
    assert key_of(other) != key_of(said)
    assert len(pd.read_parquet(folder / "table.parquet")) == before[1] + 1


def test_likelihoods_are_compared_with_those_of_the_baseline(
    done: tuple[Path, dict[str, Any], list[Record]], tmp_path: Path
) -> None:
    folder, job, records = done
    path = file(tmp_path, [{**r, "nll": 2.0, "nll_tokens": 4, "tokens": 3} for r in records])
    theirs = row(folder, key_of(imported(folder, path, job["key"], "backend=vllm")))
    assert theirs["nll"] == pytest.approx(0.5)
    samples = pd.read_parquet(folder / "samples.parquet")
    assert set(samples[samples["key"] == theirs.name]["tokens"]) == {3}


def test_all_mistakes_of_a_file_are_in_one_line_and_nothing_is_imported(
    done: tuple[Path, dict[str, Any], list[Record]], tmp_path: Path
) -> None:
    folder, job, records = done
    wrong = [*records[:4], {**records[0], "text": 3}, {"id": "no", "text": "a", "tokens": -1}, {**records[5], "nll": "x"},
             {**records[6], "latency_ms": float("inf")}]  # fmt: skip
    before = sorted(p.name for p in folder.rglob("*"))
    first = records[0]["id"]
    with fails(
        "2 of 8 samples are missing", f"line 5: id {first} is there twice, first in line 1", "line 5: text is 3",
        "line 6: id 'no' is none of the 8 samples", "line 6: tokens is -1", "line 7: nll is 'x'", "line 8: latency_ms is inf",
    ):  # fmt: skip
        imported(folder, file(tmp_path, wrong), job["key"], "backend=vllm")
    assert sorted(p.name for p in folder.rglob("*")) == before


BAD: dict[str, tuple[str, str, str]] = {
    "no text": ("a.jsonl", '{"id": 1}\n', "no column text (found: id)"),
    "no JSON": ("a.jsonl", "{\n", "cannot be read"),
    "a list": ("a.jsonl", "[1]\n", "line 1 is no JSON object"),
    "nothing": ("a.csv", "id,text\n", "no line"),
    "other fields": ("a.csv", "id,text\n1,a,b\n", "other fields than the header"),
    "no parquet": ("a.parquet", "x", "cannot be read"),
    "another form": ("a.txt", "x", "ends in '.txt'"),
    "some likelihoods": ("a.jsonl", "", "samples have no nll"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_of_another_form_is_refused(
    name: str, done: tuple[Path, dict[str, Any], list[Record]], tmp_path: Path
) -> None:
    folder, job, records = done
    path, text, said = tmp_path / BAD[name][0], BAD[name][1], BAD[name][2]
    if text:
        path.write_text(text)
    else:
        file(tmp_path, [{**records[0], "nll": 1.0}, *records[1:]], path.name)
    with fails(str(path), said):
        imported(folder, path, job["key"], "backend=vllm")


def test_options_that_mean_nothing_are_refused(
    done: tuple[Path, dict[str, Any], list[Record]], tmp_path: Path
) -> None:  # fmt: skip
    folder, job, records = done
    path = file(tmp_path, records)
    with fails("--like zzz: no cell"):
        imported(folder, path, "zzz", "backend=vllm")
    with fails("needs --like KEY"):
        imported(folder, path, None, "backend=vllm")
    with fails("no --set backend=NAME"):
        imported(folder, path, job["key"])
    with fails("--set a: right: NAME=VALUE", "--set part: it is the column", "--set x: 1 and 2"):
        imported(folder, path, job["key"], "a", "part=llm", "x=1", "x=2")
    with fails("takes --like, --set"):
        import_what("predictions", path, folder, "cider", Options(model="tiny"), job["key"])
    with fails("import csv: takes no --like"):
        import_what("csv", path, folder, "cider", Options(), job["key"])
    with fails("no such file"):
        imported(folder, tmp_path / "none.parquet", job["key"], "backend=vllm")


@pytest.mark.thorough
def test_the_row_of_an_uncompressed_model_has_its_drop_and_a_report(
    done: tuple[Path, dict[str, Any], list[Record]], tmp_path: Path
) -> None:
    folder, job, records = done
    told = "backend=trt", "dtype=float16"
    key = key_of(imported(folder, file(tmp_path, records), job["baseline"], *told))
    theirs, own = row(folder, key), row(folder, job["baseline"])
    assert theirs[["part", "dtype", "backend_options"]].tolist() == ["none (trt)", own["dtype"], "dtype=float16"]
    assert own["part"] == "none"
    name = f"predictions-trt-{key[:6]}"
    shown = short_table(select(folder, name).table).set_index("key")
    drop = f"{theirs['drop_vqa_accuracy']:.3f}".replace("-", "−")
    assert shown.loc[[job["baseline"], key], "drop"].tolist() == ["–", drop]
    ran = blip2sweep("report", name, "--output-dir", str(folder), cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert figures(select(folder, name).of_back_end("trt"))


BESIDE = ("key", "sglang"), ("baseline", "sglang"), ("key", "torch")


def test_what_was_run_here_is_compared_without_the_texts_of_others(
    done: tuple[Path, dict[str, Any], list[Record]], tmp_path: Path
) -> None:
    folder, job, records = done
    path = file(tmp_path, records)
    keys = [key_of(imported(folder, path, job[k], f"backend={b}")) for k, b in BESIDE]
    whole = pd.read_parquet(folder / "table.parquet")
    own = Selection(folder, None, whole[whole["imported"].isna()], [], {})
    for back_end in ("torch", "sglang"):
        one = pd.concat([own.table, whole[whole["key"] == keys[0]]]) if back_end == "sglang" else own.table
        source = replace(own, table=one).of_back_end(back_end)
        found = {*source.measured[0]["key"]}
        assert found == ({*own.table["key"]} if back_end == "torch" else {job["baseline"], *keys[:2]})
