"""CSV files as people write them: what is understood, what is said, what is refused, and our own table read back exactly."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from blip2sweep.errors import UserError
from blip2sweep.importing.table_csv import Imported, Options, import_csv
from blip2sweep.reporting.table_text import csv_text
from blip2sweep.results.collect import collect
from blip2sweep.results.schema import known
from blip2sweep.results.sweeps import find_sweep
from tests.command_line import blip2sweep, refused
from tests.composing import plan
from tests.synthetic import build_planned

Rows = dict[str, dict[str, float]]  # recipe -> metrics


def read(tmp_path: Path, text: str | bytes, **options: Any) -> tuple[Rows, Imported]:
    (tmp_path / "x.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    found = import_csv(tmp_path / "x.csv", tmp_path / "outputs", Options(**{"model": "tiny", "task": "t", **options}))
    lines = (tmp_path / "outputs/journals/imported-csv-x.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return {r["columns"]["recipe"]: r["published"] for r in rows}, found


def wrong(tmp_path: Path, text: str | bytes, **options: Any) -> str:
    with pytest.raises(UserError) as told:
        read(tmp_path, text, **options)
    assert not (tmp_path / "outputs").exists()
    return str(told.value)


VIT4, LLM4 = "vit:all:all=rtn4/channel", "llm:all:all=rtn4/channel"
TWO = {"none": {"cider": 1.2}, VIT4: {"cider": 1.1}}


@pytest.mark.parametrize("text", [
    "part,bits,cider\nnone,,1.2,\nvit,4,1.1,\n",
    "part,bits,cider,,\nnone,,1.2,,\nvit,4,1.1,,\n,,,,\n",
    "\ufeffPart,Bits,CIDEr\r\n\r\n# a \"comment\r\nnone,16,1.2\r\nVisual,4-bit,1.1\r\n",
    "sep=;\npart;bits;cider\nnone;;1,2\nvit;4;1,1\n",
    "part;bits;CIDEr-D\nnone;;1.2\nViT;INT4;1.1\n",
    "module\tw_bits\tCIDEr\nbaseline\tFP16\t1.2\nvision encoder\tw4a16\t1.1\n",
    ",part,bits,cider\n0,none,,1.2\n1,vit,4.0,1.1\n",
    '"part","bits","cider"\n"none","","1.2"\n"vit","4","1.1"\n',
    "vit_bits,qformer_bits,llm_bits,CIDEr\n16,16,16,1.2\n4,16,16,1.1\n",
    "ViT bits,Q-Former bits,LLM bits,CIDEr\nnone,none,none,1.2\n4,fp16,-,1.1\n",
    "Visual,LLM,CIDEr\nFP16,FP16,1.2\n4,16,1.1\n",
    "bits_vit,bits_llm,cider\n32,32,1.2\n4,32,1.1\n",
    "part,bits,CIDEr\nnone,,120\nvit,4,110\n",
    "part,bits,CIDEr (%)\nnone,,120\nvit,4,110\n",
    "part,bits,CIDEr\nnone,,120%\nvit,4,110%\n",
    "part,bits,CIDEr x100\nnone,,120\nvit,4,110\n",
    "part,method,bits,symmetric,cider\nnone,-,,,1.2\nvit,round-to-nearest,4,asym,1.1\n",
])  # fmt: skip
def test_usual_forms_are_one_table(text: str, tmp_path: Path) -> None:
    rows, _ = read(tmp_path, text)
    assert {r: {k: pytest.approx(v) for k, v in m.items()} for r, m in rows.items()} == TWO


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_encodings_with_a_mark(encoding: str, tmp_path: Path) -> None:
    assert read(tmp_path, "part,bits,cider\nnone,,1.2\nvit,4,1.1\n".encode(encoding))[0] == TWO


def test_groups_and_activations_mean_what_they_say(tmp_path: Path) -> None:
    rows, found = read(tmp_path, "part,w_bits,groupsize,a_bits,cider\nnone,,,,1\nvit,4,32,,1\nvit,4,-1,,1\nllm,8,,8,1\nqformer,16,,,1\n"
                       .replace("qformer,16,,,1\n", ""))  # fmt: skip
    assert set(rows) == {"none", "vit:all:all=rtn4/group32", VIT4, "llm:all:all=rtn8/channel/a8"}
    assert "group_size without strategy: group" in found.notes
    rows, _ = read(
        tmp_path, "scheme,cider\nFP16,1\nW4A16g32,1\nint4-g64,1\n4bit-128g,1\nW8A8,1\nnf4,1\n", constants=("part=llm",)
    )
    assert "llm:all:all=rtn4/group32" in rows
    assert "llm:all:all=rtn8/channel/a8" in rows
    assert any("nf4" in r for r in rows)


def test_what_was_taken_for_granted_is_said(tmp_path: Path) -> None:
    _, found = read(tmp_path, "vit_bits,llm_bits,CIDEr,METEOR,SPICE\n16,16,120,0.28,22\n4,16,110,0.27,21\n")
    told = "\n".join(found.notes)
    assert "column vit_bits: bits_vit" in told
    assert "CIDEr: percentages, divided by 100, 120 of the untouched model as 1.2" in told
    assert "as they stand, no percentages: METEOR" in told
    assert "rtn is taken" in told
    assert found.unused == ["SPICE"]


def test_options_settle_what_a_file_leaves_open(tmp_path: Path) -> None:
    text = "W,score,cider\n16,8,1\n4,7,1\n"
    options: dict[str, Any] = {"columns": ("bits=W", "cider=score"), "constants": ("part=vit", "method=gptq")}
    assert "--scale cider=1, or --scale cider=100" in wrong(tmp_path, text.replace("16,", "none,"), **options)
    rows, found = read(tmp_path, text.replace("16,", "none,"), **options, scales=("cider=100",))
    assert rows == {"none": {"cider": 0.08}, "vit:all:all=gptq4/channel": {"cider": 0.07}}
    assert found.unused == ["cider"]
    text = 'part,bits,cider\nnone,,"1,234"\nvit,4,"1,100"\n'
    assert read(tmp_path, text, decimal="comma")[0]["none"] == {"cider": 1.234}


@pytest.mark.parametrize(("text", "told"), [
    ("part,bits_vit,cider\nnone,,1\nvit,4,0.9\nvit,,0.8\n", "line 4: part vit and no width"),
    ("part,bits,cider\nnone,,1\n,4,0.9\n", "line 3: no part is named"),
    ("vit_bits,llm_bits,cider\n,,1\n4,,1\n", "line 2: no width in vit_bits, llm_bits"),
    ("vit_bits,llm_bits,cider\n16,16,1\n4,,1\n", "line 3: no width in llm_bits"),
    ("bits,cider\nfp16,1\n4,1\n", "line 3: no column says which part; right: --set part=all"),
    ("part,bits,cider\nnone,4,1\n", "line 2: part none and 4 bits"),
    ("part,bits,bits_vit,cider\nnone,,,1\nvit,4,8,1\n", "line 3: bits 4 and 8 of vit"),
    ("part,bits_vit,bits_llm,cider\nnone,,,1\nvit,4,8,1\n", "line 3: part vit and llm with 8 bits"),
    ("recipe,bits,cider\nnone,,1\nvit=rtn4/channel,8,1\n", "line 3: bits 8 contradicts the recipe"),
    ("recipe,part,cider\nnone,none,1\nvit=rtn4/channel,llm,1\n", "line 3: part llm contradicts"),
    ("recipe,method,cider\nnone,,1\nvit=rtn4/channel,gptq,1\n", "line 3: method gptq contradicts"),
    ("recipe,part,bits,cider\nnone,vit,4,1\n", "contradicts the recipe none"),
    ("part,bits,strategy,group_size,cider\nnone,,,,1\nvit,4,channel,32,1\n", "channel and group_size 32 contradict"),
    ("part,bits,method,group_size,cider\nnone,,,,1\nvit,4,minmax,32,1\n", "line 3: .*minmax takes tensor"),
    ("part,bits,method,symmetric,cider\nnone,,,,1\nvit,4,minmax,true,1\n", "line 3: symmetric true: minmax has no such option"),
    ("part,bits,method,cider\nnone,,,1\nvit,nf4,gptq,1\n", "line 3: method gptq and a width that says nf4"),
    ("part,bits,method,cider\nnone,,,1\nvit,4,gptr,1\n", "line 3: method gptr: no method of ours"),
    ("part,bits,cider\nnone,,1\nvit,2.5,1\n", "line 3: bits 2.5: no width"),
    ("part,bits,cider\nnone,,1\nvit,-4,1\n", "line 3: bits -4: no width"),
    ("part,bits,cider,ciderd\nnone,,1,1\n", "columns cider and ciderd both say cider; right: --columns cider=ciderd"),
    ("part,bits,cider,cider\nnone,,1,1\n", "line 1: 2 columns are called cider"),
    ("part,bits,cider\nnone,,1.2\nvit,4,110\n", "line 3: cider 110: out of range"),
    ("part,bits,vqa\nnone,,0.53\nvit,4,50\n", "line 3: vqa 50: out of range"),
    ("part,bits,vqa\nnone,,2\nvit,4,1\n", "may be vqa_accuracy itself or a percentage"),
    ("part,bits,vqa\nnone,,53%\nvit,4,50\n", "some values have a percent sign"),
    ("part,bits,cider\nnone,,inf\n", "line 2: cider inf: no finite number"),
    ("part,bits,cider\nnone,,1e999\n", "line 2: cider 1e999: no finite number"),
    ("part,bits,cider\nnone,,-1\n", "line 2: cider -1: less than 0"),
    ("part,bits,cider\nnone,,1\nvit,4,nan\n", "line 3: no metric is a number"),
    ('part,bits,cider\nnone,,"1,234"\n', "--decimal comma, or --decimal point"),
    ("part,bits,cider\nnone,,1\nvit,4\n", "line 3: 2 cells below 3 columns"),
    ("part,bits,cider\nnone,,1\nvit,4,1,9\n", "line 3: 4 cells below 3 columns"),
    ('part,bits,cider\nnone,,1\nvit,4,"1\n', "line 3: no CSV"),
    (b"part,bits,cider\nnone,,1\nvit\xff,4,1\n", "line 3: cannot be read as UTF-8"),
    ("", "empty"), ("part,bits,cider\n", "a header and no line"),
    ("recipe,cider\nnone,1\nvit=rtn4/channel/foo=1,1\n", "line 3: .*rtn has no 'foo=1'"),
    ("recipe,cider\nnone,1\nvit=rtn4/group,1\n", "line 3: 'vit=rtn4/group' is no recipe"),
    ("recipe_json,cider\n[],1\n[1],1\n", "line 3: recipe_json: no list of targets"),
])  # fmt: skip
def test_what_is_refused(text: str | bytes, told: str, tmp_path: Path) -> None:
    assert re.search(told, wrong(tmp_path, text))


def test_every_mistake_of_a_file_at_once(tmp_path: Path) -> None:
    text = "part,bits,cider\nnone,,1\nvit,2.5,1\nllm,4,much\nx,4,1\nvit,4\n"
    told = wrong(tmp_path, text)
    assert "4 mistakes, nothing is imported" in told
    assert [f"line {n}:" in told for n in range(2, 7)] == [False, True, True, True, True]
    assert told.index("line 3:") < told.index("line 4:") < told.index("line 6:")


@pytest.mark.parametrize(("options", "told"), [
    ({"columns": ("cidr=x",)}, "--columns cidr=x: nothing is called cidr here; did you mean 'cider'"),
    ({"columns": ("cider=CIDEr",)}, "--columns cider=CIDEr: no such column"),
    ({"columns": ("cider",)}, "right: MEANING="),
    ({"scales": ("cider=10",)}, "right: cider=100"),
    ({"decimal": ","}, "right: comma, or point"),
])  # fmt: skip
def test_options_that_name_nothing(options: dict[str, Any], told: str, tmp_path: Path) -> None:
    assert told in wrong(tmp_path, "part,bits,cider\nnone,,1\nvit,4,1\n", **options)


SPELLED = (
    "nf4/channel fp4/channel int8/channel float8/channel float8/tensor hqq4/channel rtn4/group32 rtn4/tensor/sym gptq4/channel "
    "gptq4/group32/act_order=True/static_groups=True gptq3/channel/damp=0.05 awq3/channel/clip=False awq_prescale4/channel "
    "mse4/channel/grid=50/norm=2.0 smoothquant8/channel/sym smoothquant8/channel minmax16/tensor minmax8/tensor/quantize_bias=False "
    "rtn8/channel/sym/a8/packed rtn8/channel/a8_asym rtn8/channel/a8_static"
).split()


def test_every_methods_own_spelling_is_read_back(tmp_path: Path) -> None:
    texts = [f"llm:all:attention={s.replace('_asym', ' asym').replace('_static', ' static')}" for s in SPELLED]
    rows, _ = read(tmp_path, "recipe,cider\nnone,1.2\n" + "".join(f"{t},1.0\n" for t in texts))
    assert list(rows) == ["none", *(t.replace("/static_groups=True", "") for t in texts)]


CELLS = [
    ["quant=nf4", "quant.group_size=32"], ["quant=fp4", "part=llm"], ["quant=int8"], ["quant=float8", "quant.strategy=tensor"], ["quant=hqq"],
    ["quant=gptq", "quant.bits=3", "calibration.seed=0,1", "quant.act_order=true"],
    ["quant=awq", "quant.strategy=group", "quant.group_size=32"], ["per_part.vit.bits=8", "per_part.llm.bits=3"],
    ["quant=smoothquant", "quant.bits=8", "quant.input.bits=8", "quant.input.strategy=tensor", "quant.input.dynamic=false"],
    ["quant=rtn", "quant.bits=8", "quant.input.bits=8", "quant.input.symmetric=false", "quant.symmetric=true"],
    ["quant=rtn", "quant.bits=8", "quant.symmetric=true", "quant.packed=cpu", "part=vit"],
    ["quant=minmax", "quant.bits=8,16", "quant.quantize_bias=false"], ["quant=mse", "quant.norm=2.0", "blocks=first", "layers=mlp"],
]  # fmt: skip


@pytest.mark.thorough
def test_our_own_table_comes_back_exactly(tmp_path: Path) -> None:
    cells = {k: c for w in CELLS if not _lacks(w) for k, c in plan(*w, "task.limit=20").cells.items()}
    build_planned(tmp_path, cells.values(), lambda job: len(str(job["recipe"])) % 7 / 70, n=12)
    own = pd.read_parquet(tmp_path / "table.parquet")
    (tmp_path / "own.csv").write_text(csv_text(own))
    found = import_csv(tmp_path / "own.csv", tmp_path / "other")
    sweep = find_sweep(tmp_path / "other", found.name)
    collect(tmp_path / "other", sweep, rescored=sweep.keys)
    back = known(pd.read_parquet(tmp_path / "other/table.parquet")).set_index("imported_key")
    own = known(own).set_index("key")
    assert set(back.index) == set(own.index)
    left = {
        "semantics",
        "baseline",
        "host",
        "finished",
        "sweeps",
    }  # of this import; all others that come back are the same
    same = [c for c in own if c in back and c not in left]
    pd.testing.assert_frame_equal(back.loc[own.index, same], own[same], check_names=False, check_exact=True)
    assert {
        "recipe_json",
        "cider",
        "drop_cider",
        "drop_cider_low",
        "drop_nll_high",
        "calibration_seed",
        "model_bytes",
        "data",
    } <= set(same)
    assert {"predictions", "attempts"} <= set(found.unused)
    assert not {"key", "recipe", "drop_cider_low", "calibration"} & set(found.unused)


def _lacks(words: list[str]) -> bool:
    """Whether a method's library is not here, so that there is no such cell."""
    from blip2sweep.compression.quantize import METHODS, installed

    extra = METHODS[words[0].removeprefix("quant=")].extra if words[0].startswith("quant=") else None
    return extra is not None and not installed(extra)


def test_a_recipe_needs_no_library_to_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from blip2sweep.compression.quantize import Method, options, resolve

    monkeypatch.setattr(Method, "missing", property(lambda self: self.extra))
    options.resolve_options.cache_clear()
    resolve._entries.cache_clear()
    rows, _ = read(tmp_path, "part,bits,cider\nnone,,1\nllm,nf4,1\n")
    assert any("nf4" in r for r in rows)


def test_the_verb_says_how_it_read(tmp_path: Path) -> None:
    (tmp_path / "my results (1).csv").write_text("part,bits,CIDEr,note\nnone,,120,=1+1\nvit,4,110,\n")
    ran = blip2sweep("import", "csv", "my results (1).csv", "--model", "tiny", "--output-dir", "a b", cwd=tmp_path)
    assert ran.code == 0, ran
    assert "CIDEr: percentages" in ran.err
    assert "columns that are not used: note" in ran.out
    assert "next: blip2sweep report csv-my-results-1- --output-dir 'a b'" in ran.out
    refused(
        blip2sweep("import", "blip2-coco", ".", "--scale", "cider=1", cwd=tmp_path),
        "takes --metrics and --output-dir alone",
    )
