"""Which cell the words of `quantize` and `export` mean: a key, a recipe file or overrides, and every mistake at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra

from blip2sweep.commands import export, made_with
from blip2sweep.commands.chosen_cell import Chosen, _of_file, chosen_cell
from blip2sweep.commands.export import run_export
from blip2sweep.commands.quantize import run_quantize
from blip2sweep.errors import UserError
from blip2sweep.planning.packs import write_packs
from blip2sweep.results.sweeps import Sweep
from blip2sweep.wire.pack import CellJob
from tests.composing import plan

WORDS = ("part=llm", "quant.bits=4", "task.limit=2")


@pytest.fixture(scope="module")
def job() -> CellJob:
    (found,) = [c.job() for c in plan(*WORDS).cells.values() if not c.recipe.empty]
    return found


@pytest.fixture(autouse=True)
def apart() -> Iterator[None]:
    """Composing a cell outside of Hydra's main leaves Hydra initialized."""
    yield
    GlobalHydra.instance().clear()


@pytest.fixture
def results(tmp_path: Path, job: CellJob) -> Path:
    Sweep("s", "command", 1.0, [job["key"]], []).write(tmp_path / "outputs")
    write_packs([[job]], tmp_path / "outputs/sweeps/s", "s", "runs", tmp_path / "outputs", {})
    return tmp_path / "outputs"


def recipe_of(job: CellJob, path: Path, **source: object) -> str:
    path.write_text(yaml.safe_dump({"targets": job["recipe"], **({"source": source} if source else {})}))
    return str(path)


def chosen(results: Path, *words: str) -> Chosen:
    return chosen_cell("quantize", words, None, results)


def test_a_key_a_file_and_overrides_mean_one_cell(results: Path, job: CellJob) -> None:
    path = recipe_of(job, results.parent / "mine.yaml", model="tiny", weights=job["columns"]["weights"])
    found = [chosen(results, job["key"][:5]), chosen(results, path, "task.limit=2"), chosen(results, *WORDS)]
    assert [f.job["key"] for f in found] == [job["key"]] * 3
    assert [f.job["recipe"] for f in found] == [job["recipe"]] * 3
    assert found[0].words == (job["key"],)
    assert found[1].words == (path, "task.limit=2")
    assert found[2].words == WORDS
    assert not any(f.notes for f in found)


def test_of_a_cell_that_was_not_run_planning_says_the_size(results: Path, job: CellJob) -> None:
    assert not chosen(results, job["key"]).row
    assert not chosen(results, *WORDS).row
    told = export._compared(100, 100.0, 110.0, False)
    assert told == "110 by planning less 10 of blocks and modules that no graph reads, +0.00%"
    assert export._compared(50, 100.0, 100.0, False).endswith("NOT what planning says: a defect")
    assert export._compared(100, 100.0, 100.0, True) == "100 in the table, +0.00%"


def test_a_file_without_an_ending_and_one_in_a_folder_with_an_odd_name(
    results: Path, job: CellJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(results.parent)
    recipe_of(job, results.parent / "recipe")
    (results.parent / "a=b").mkdir()
    recipe_of(job, results.parent / "a=b" / "it's ${one}.yaml")
    for word in ("recipe", "./a=b/it's ${one}.yaml"):
        assert chosen(results, word, "task.limit=2").job["key"] == job["key"]


def test_a_file_stands_for_the_model_that_it_was_made_of(results: Path, job: CellJob) -> None:
    path = recipe_of(job, results.parent / "llava.yaml", model="tiny-llava", weights="0" * 12)
    assert _of_file(path, {"model": "tiny-llava"}, [], None) == [f"recipe_file={path}", "model=tiny-llava"]
    found = chosen(results, path, "model=tiny", "task.limit=2")
    assert found.job["key"] == job["key"]
    assert found.notes == (f"note: {path} was made of other weights (000000000000, here {job['columns']['weights']})",)
    for own in ("model=tiny", "model.path=/x", "+model.hub_id=a/b"):
        assert _of_file(path, {"model": "tiny-llava"}, [own], None) == [f"recipe_file={path}"]
    (results.parent / "site/model").mkdir(parents=True)
    (results.parent / "site/model/mine.yaml").write_text("")
    assert _of_file(path, {"model": "mine"}, [], results.parent / "site") == [f"recipe_file={path}", "model=mine"]
    recipe_of(job, results.parent / "llava.yaml", model="mine")
    with pytest.raises(UserError, match=r"made of the model mine, which no file of conf/model has; right: model.path="):
        chosen(results, path)


@pytest.mark.thorough
def test_a_file_has_what_its_weights_and_their_size_depend_on(results: Path) -> None:
    words = (
        "part=llm",
        "quant=gptq",
        "quant.bits=3",
        "task.limit=2",
        "model.stored=float16",
        "calibration.n_samples=8",
    )
    (made,) = [c.job() for c in plan(*words).cells.values() if not c.recipe.empty]
    path = recipe_of(made, results.parent / "r.yaml", model="tiny", overrides=made_with.of_job(made))
    again = chosen(results, path, "task.limit=2")
    assert (again.job["key"], again.notes) == (made["key"], ())
    assert again.job["columns"]["model_bytes"] == made["columns"]["model_bytes"]
    other = chosen(results, path, "task.limit=2", "model.stored=null")
    assert other.job["columns"]["model_bytes"] > made["columns"]["model_bytes"]
    assert other.notes == (f"note: {path} was made with model.stored=float16, here model.stored=null",)
    row = {**made["columns"], "backend": "torch"}
    assert made_with.of_row(row, True, ()) == {
        k: v
        for k, v in made_with.of_job(made).items()
        if k not in ("calibration.image_token_weight", "calibration.text_only")
    }
    assert not any(k.startswith("calibration") for k in made_with.of_row(row, False, ("calibration=task",)))


def test_the_dtypes_of_parts_and_a_section_in_the_place_of_another() -> None:
    assert made_with.of_dtypes("vit:float32 llm:float16", "vit:float32 llm:float16") == {
        "model.dtype_per_part.vit": "float32", "model.dtype_per_part.llm": "float16"
    }  # fmt: skip
    source = {"model": "tiny", "overrides": {"model.dtype": "float32", "calibration": "task", "calibration.seed": 1}}
    assert made_with.words_of(source, ["model=tiny"]) == [
        "model.dtype=float32",
        "calibration=task",
        "calibration.seed=1",
    ]
    assert made_with.words_of(source, ["model=other", "calibration=coco"]) == []
    assert made_with.words_of({"model": "tiny"}, []) == []


@pytest.mark.parametrize(("words", "told"), [
    ((), ["no cell; right: one key, one recipe file, or overrides"]),
    (("zz",), ["zz: no key and no override; right: the beginning of a key"]),
    (("abc", "part=llm"), ["quantize abc part=llm: a key is a whole cell"]),
    (("abc", "zz", "part=llm"), ["zz: no key", "2 cells (abc, zz)", "a key is a whole cell"]),
    (("ffff",), ["ffff: no pack holds such a cell in "]),
    (("nofile.yaml",), ["recipe_file=nofile.yaml: cannot be read (No such file or directory)"]),
    (("nofile.yaml", "recipe_file=other.yaml"), ["the recipe is given already; right: one recipe file"]),
    (("part=vti",), ["part=vti"]),
    (("part=llm,vit",), ["several values, and this is about one cell"]),
])  # fmt: skip
def test_words_that_mean_no_cell(results: Path, words: tuple[str, ...], told: list[str]) -> None:
    before = sorted(results.parent.rglob("*"))
    with pytest.raises(UserError) as caught:
        run_quantize(words, None, None, results)
    lines = getattr(caught.value, "lines", (str(caught.value),))
    assert all("\n" not in line for line in lines)
    assert all(any(word in line for line in lines) for word in told), lines
    assert lines[-1] == "quantize: no --to; right: --to DIR, a new folder"
    with pytest.raises(UserError):
        run_export(words, ("compressed-tensors", results.parent / "to"), None, None, None, results)
    assert sorted(results.parent.rglob("*")) == before


@pytest.mark.thorough
def test_a_file_that_is_no_recipe(results: Path) -> None:
    path = results.parent / "bad.yaml"
    for text, told in (("targets: 3", "no list `targets`"), ("a: [", "not YAML"), ("- 1", "no list `targets`")):
        path.write_text(text)
        with pytest.raises(UserError, match=told):
            chosen(results, str(path))
