"""Bad input typed by hand: one line on stderr, exit code 2, no output folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from blip2sweep.files import local_path
from tests.command_line import blip2sweep, refused

CASES = {
    "a list of widths": (["-m", "quant.bits=[2,4]"], ["quant.bits=[2,4]: a list", "right: -m quant.bits=2,4 for a sweep"]),
    "a list of parts": (["part=[vit,llm]"], ["right: -m part=vit,llm for a sweep"]),
    "no batch": (["batch_size=0"], ["batch_size=0: right: a positive integer"]),
    "a rule of stopping that is none": (["evaluation.stop=sure"], ["evaluation.stop=sure: no such rule", "right: none, known or verdict"]),
    "several rules of stopping": (["-m", "evaluation.stop=none,known"], ["evaluation.stop=none,known", "a sweep has one evaluation.stop"]),
    "a margin that is none": (["evaluation.stop=known", "evaluation.half_width=100%"], ["evaluation.half_width=100%: right: more than 0 % and less than 100 %"]),
    "a margin of another rule": (["evaluation.stop=verdict", "evaluation.half_width=3%"], ["would be ignored", "right: evaluation.stop=known"]),
    "fewer than no processes": (["data_workers=-1"], ["data_workers=-1: right: 0, or how many"]),
    "a verb misspelt": (["stauts"], ["stauts: no verb", "did you mean 'status'"]),
    "a space after a comma": (["-m", "quant.bits=2,", "4"], ["no space between values"]),
    "an experiment by its path": (["+experiment=conf/experiment/a.yaml"], ["experiment=conf/experiment/a.yaml: a file's name"]),
    "unknown part": (["part=vitt"], ["part=vitt", "did you mean 'vit'"]),
    "unknown method": (["quant.method=rtm"], ["quant.method=rtm", "did you mean 'rtn'"]),
    "unknown quant": (["quant=gptk"], ["quant=gptk", "did you mean 'gptq'"]),
    "unknown model": (["model=tinny"], ["model=tinny", "did you mean 'tiny'"]),
    "unknown task": (["task=shapes_captions"], ["did you mean 'shapes_caption'"]),
    "unknown key": (["quant.bitz=3"], ["quant.bitz", "did you mean 'quant.bits'"]),
    "unknown key with +": (["+quant.bitz=3"], ["did you mean 'quant.bits'"]),
    "unknown key with ++": (["++foo.bar=3"], ["unknown key 'foo.bar'"]),
    "unknown key in a sweep": (["-m", "quant.bitz=3,4"], ["did you mean 'quant.bits'"]),
    "unknown option of a part": (["per_part.vit.bitz=3"], ["per_part.vit.bitz"]),
    "bits 0": (["quant.bits=0"], ["quant.bits=0", "1-8 or none"]),
    "bits 9": (["quant.bits=9"], ["quant.bits=9", "1-8 or none"]),
    "bits in words": (["quant.bits=four"], ["quant.bits=four", "such as 4"]),
    "blocks outside": (["blocks=first+13-99"], ["blocks=first+13-99", "'13-99' is outside vit, whose blocks are 0-5"]),
    "blocks unknown": (["blocks=front"], ["'front' is not a choice of blocks"]),
    "layers a part lacks": (["part=vit", "layers=crossattention"], ["vit of tiny has no layer 'crossattention'"]),
    "layers one named part lacks": (["part=all", "layers=crossattention"], ["vit of tiny has no layer"]),
    "per_part outside part": (["part=vit", "per_part.llm.bits=3"], ["per_part.llm: outside part=vit"]),
    "an option used by no cell": (["quant.group_size=32"], ["quant.group_size=32: used by no cell"]),
    "an option used by no cell of a sweep": (["-m", "quant.bits=2,4", "quant.quantize_bias=false"], ["used by no cell"]),
    "an option of no part": (["part=none", "quant.bits=3"], ["quant.bits=3: used by no cell"]),
    "group too large": (["quant.strategy=group", "quant.group_size=300"], ["group_size=300", "at most 256"]),
    "latency of simulated cells alone": (
        ["-m", "part=vit,llm", "quant.bits=2,4", "analysis.latency=true"],
        ["analysis.latency=true: no cell", "(quantization is simulated without quant.packed)", "right: leave it out"],
    ),
    "a study that would swallow": (["-m", "+study=card", "quant.bits=3"], ["study=card sets quant.bits itself"]),
    "unknown study": (["-m", "+study=crad"], ["did you mean 'card'"]),
    "a rule without target": (["rules.a.bits=3"], ["rules.a.target is not set"]),
    "a rule that meets nothing": (["part=vit", "rules.a.target=llm:all:fc2", "rules.a.bits=3"], ["meets no layer"]),
    "keep meets nothing": (["part=vit", "keep=llm:0"], ["keep=llm:0", "meets no layer"]),
    "no output folder": (["-m", "output_dir=", "part=vit"], ["output_dir=: no folder", "output_dir=FOLDER"]),
    "a strategy that a method lacks": (["quant=minmax", "quant.strategy=group"], ["minmax takes tensor", "right: quant.strategy=tensor"]),
    "flags before a verb": (["--config-dir", "site", "export", "49e8"], ["export: a verb comes first", "blip2sweep export --config-dir site 49e8"]),
    "recipe file missing": (["recipe_file=nope.yaml"], ["recipe_file=nope.yaml", "cannot be read"]),
    "an unknown rule of scoring": (["task=shapes_vqa", "task.rule=[lavis,foo]"], ["task.rule=foo: kind vqa", "official, lavis, evalai"]),
    "a rule of another kind": (["task.rule=lavis"], ["task.rule=lavis: kind caption", "right: task.rule=null"]),
    "data folder missing": (["task=coco_caption"], ["data/coco", "no such folder"]),
    "not in the cache": (["model=blip2-opt-2.7b"], ["Salesforce/blip2-opt-2.7b", "hf download"]),
    "dtype": (["model.dtype=int8"], ["model.dtype=int8", "bfloat16, float16, float32"]),
    "stored in an unknown dtype": (["model.stored=int8"], ["model.stored=int8", "bfloat16, float16, float32"]),
    "stored in what does not hold it": (
        ["model.dtype=bfloat16", "model.stored=float16"], ["model.stored=float16: ", "right: model.stored=null or model.stored=bfloat16"]
    ),
    "a setting nothing consumes": (["generation.length_penalty=2"], ["length_penalty=2", "used by no cell"]),
    "a chat model for no task": (["chat=openai"], ["chat=openai: used by no cell"]),
    "a ratio of 2of4": (
        ["part=vit", "quant.bits=none", "sparsity=magnitude", "sparsity.pattern=2of4", "sparsity.ratio=0.7"],
        ["sparsity.ratio=0.7: used by no cell", "2of4 always takes half of the weights"],
    ),
    "a temperature without a teacher": (
        ["part=none", "recover=full", "recover.temperature=2"],
        ["recover.temperature=2: used by no cell", "recover.loss=task has no teacher", "or recover.loss=distill"],
    ),
    "quantized again, and never before": (
        ["part=none", "recover=lora", "recover.requantize=true"],
        ["used by no cell", "nothing that is trained is quantized"],
    ),
    "an option of no recovery": (["part=none", "recover.rank=4"], ["nothing is trained", "or recover=lora"]),
    "a split that is not there": (
        ["part=none", "recover=full", "recover.split=nothere"], ["recover.split=nothere: no annotation file"]
    ),
    "more samples than there are": (
        ["part=none", "recover=full", "recover.n_samples=10000000"],
        ["recover.n_samples=10000000: shapes_caption has 256 samples; right: at most as many"],
    ),
    "blocks dropped per part": (
        ["per_part.vision.drop_blocks=2"], ["per_part.vision.drop_blocks: is not set per part; right: drop_blocks=part:blocks"]
    ),
    "a recovery per part": (
        ["per_part.vision.recover.rank=4"], ["per_part.vision.recover: is not set per part; right: recover.target=part"]
    ),
    "known options of a part": (["per_part.vit.foo=3"], ["per_part.vit.foo: unknown option", "sparsity.ratio"]),
    "all that is quantized is dropped": (
        ["part=vit", "blocks=4-5", "drop_blocks=vision:4-5"], ["drop_blocks drops all of them; right: blocks of vit that stay"]
    ),
    "two words for a part in drop_blocks": (["part=none", "drop_blocks=vision:4+vit:5"], ["right: one of the two words"]),
    "no chat model": (["task.kind=incontext", "task=shapes_vqa"], ["chat=none: this task asks a chat model"]),
    "a sweep to ask for that is not there": (["ask", "nobody"], ["no sweep here"]),
    "workers in words": (["hydra.launcher.workers=two"], ["hydra.launcher.workers=two: right: 1 or more"]),
    "a launcher's key misspelt": (["hydra.launcher.workerz=2"], ["hydra.launcher.workerz: unknown key", "did you mean 'hydra.launcher.workers'"]),
    "a limit in words": (["task.limit=abc"], ["task.limit=abc: not an integer; right: a positive integer, null"]),
    "a limit in words in a sweep": (["-m", "task.limit=5,abc"], ["task.limit=abc: not an integer; right: a positive integer, null"]),
    "a flag in words": (["quant.symmetric=maybe"], ["quant.symmetric=maybe: not true or false; right: true, false, null"]),
    "a damping in words": (["quant=gptq", "quant.damp=much"], ["quant.damp=much: not a number; right: a number from 0 to 1"]),
    "options of no quantization": (["quant=none", "quant.bits=3"], ["quant.bits=3: quant=none quantizes nothing"]),
    "options of no quantization in a sweep": (["-m", "quant=none", "quant.bits=2,3"], ["quant.bits=2,3: quant=none quantizes nothing"]),
    "workers 0": (["hydra.launcher.workers=0"], ["hydra.launcher.workers=0"]),
    "not a Hydra override": (["quant.bits=[2"], ["quant.bits=[2"]),
    "a deletion": (["~quant.bits=4"], ["keys cannot be deleted"]),
    "sweep name": (["sweep_name=../up"], ["sweep_name=../up", "not a folder name"]),
    "cache mode": (["cache=foo"], ["cache=foo", "disk, memory, off"]),
    "a cache of less than nothing": (["cache_gb=-1"], ["cache_gb=-1", "0 or more"]),
    "a cache in words": (["cache_memory_gb=lots"], ["cache_memory_gb"]),
    "cache verb": (["cache", "infos"], ["blip2sweep cache infos", "did you mean 'info'"]),
    "a part beside a recipe file": (["recipe_file=r.yaml", "part=llm"], ["part=llm", "used by no cell"]),
    "rerun of no cell": (["--rerun", "abc"], ["--rerun abc"]),
    "a verb's flag misspelt": (["table", "--formt", "csv"], ["table: No such option: --formt", "blip2sweep table --help"]),
    "a word too many": (["status", "a", "b"], ["status: ", "blip2sweep status --help"]),
    "a number in words": (["suggest", "-n", "many"], ["suggest: Invalid value for '-n'"]),
    "a screening that does not wait": (
        ["screen", "quant.bits=2,4", "hydra/launcher=slurm", "hydra.launcher.wait=false"],
        ["hydra.launcher.wait=false: a screening reads results", "right: leave it out"],
    ),
    "a screening by a launcher of others": (["screen", "quant.bits=2,4", "hydra/launcher=basic"], ["right: local or slurm"]),
    "a screening by a sweeper of others": (["screen", "hydra/sweeper=basic"], ["hydra/sweeper=basic", "right: screen without it"]),
    "a screening of an unknown key": (["screen", "--plan", "quant.bit=2"], ["quant.bit", "did you mean"]),
    "a screening of an unknown task": (["screen", "quant.bits=2,3", "task=nope"], ["task=nope: no such task", "did you mean"]),
    "a screening of one cell": (["screen"], ["screen: one cell beside the baseline", "right: several values"]),
    "a verb without its argument": (["logs"], ["logs: Missing argument 'key'"]),
    "an export of no cell": (["export", "--to", "openvino", "x"], ["export: no cell", "right: such as blip2sweep export KEY"]),
    "an export to an unknown format": (["export", "ab", "--to", "gguf", "x"], ["--to gguf: no such format"]),
    "an export of a cell that is not there": (["export", "ab", "--to", "onnx", "x"], ["ab: no pack holds such a cell in outputs"]),
    "an export that was never made": (["export", "--check", "x"], ["x: no export, blip2sweep.json is not there"]),
    "nothing to score again": (["rescore"], ["outputs: no results here"]),
    "tracking mode": (["tracking=wandb", "tracking.mode=of"], ["tracking.mode=of", "online or offline"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_one_line_exit_code_2_and_no_folder(name: str, tmp_path: Path) -> None:
    words, told = CASES[name]
    cache = tmp_path / "cache"
    (tmp_path / "r.yaml").write_text("targets: [{target: vit, method: rtn, bits: 4}]")
    refused(blip2sweep(*words, cwd=tmp_path, env={"HF_HOME": str(cache)}), *told)
    assert not (tmp_path / "outputs").exists()


def test_full_trace_on_request(tmp_path: Path) -> None:
    ran = blip2sweep("part=vitt", cwd=tmp_path, env={"HYDRA_FULL_ERROR": "1"})
    assert ran.code == 1
    assert "Traceback" in ran.err
    assert "UserError" in ran.err


# ---- data and checkpoints


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A copy of the shipped data set that a test may break."""
    source = local_path("pkg://blip2sweep.assets/shapes")
    folder = tmp_path / "shapes"
    shutil.copytree(source / "annotations", folder / "annotations")
    (folder / "val2014").symlink_to(source / "val2014")
    return folder


def captions(data: Path) -> Path:
    return data / "annotations" / "captions_val2014.json"


def sweep_on(data: Path, tmp_path: Path, *words: str) -> list[str]:
    return [f"task.data_dir={data}", "task.limit=3", *words]


def test_missing_annotation_file(data: Path, tmp_path: Path) -> None:
    captions(data).unlink()
    refused(blip2sweep(*sweep_on(data, tmp_path), cwd=tmp_path), "captions_val2014.json")
    assert not (tmp_path / "outputs").exists()


def test_truncated_json(data: Path, tmp_path: Path) -> None:
    captions(data).write_text(captions(data).read_text()[:5000])
    refused(blip2sweep(*sweep_on(data, tmp_path), cwd=tmp_path), "captions_val2014.json")
    assert not (tmp_path / "outputs").exists()


def test_missing_image(data: Path, tmp_path: Path) -> None:
    told = json.loads(captions(data).read_text())
    told["images"][0]["file_name"] = "COCO_val2014_999999999999.jpg"
    captions(data).write_text(json.dumps(told))
    refused(blip2sweep(*sweep_on(data, tmp_path), cwd=tmp_path), "COCO_val2014_999999999999.jpg")


def test_an_annotation_that_leaves_the_data_folder(data: Path, tmp_path: Path) -> None:
    told = json.loads(captions(data).read_text())
    told["images"][0]["file_name"] = "../../../../etc/passwd"
    captions(data).write_text(json.dumps(told))
    refused(blip2sweep(*sweep_on(data, tmp_path), cwd=tmp_path), "../../../../etc/passwd")


def test_a_checkpoint_without_safetensors(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(local_path("pkg://blip2sweep.assets/tiny"), folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(blip2sweep(f"model.path={folder}", cwd=tmp_path), "safetensors")


def test_the_weights_of_another_model(tmp_path: Path) -> None:
    ran = blip2sweep("model=blip2-opt-2.7b", "model.path=pkg://blip2sweep.assets/tiny", cwd=tmp_path)
    refused(ran, "not a checkpoint of model blip2-opt-2.7b", "text_config.hidden_size is 64 in config.json, 2560")
    assert not (tmp_path / "outputs").exists()


def test_an_output_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("mine")
    refused(blip2sweep("quant.bits=3", cwd=tmp_path), "output_dir=outputs")
    assert (tmp_path / "outputs").read_text() == "mine"


def test_verbs_without_a_sweep(tmp_path: Path) -> None:
    for verb in ("status", "table"):
        refused(blip2sweep(verb, cwd=tmp_path), "no sweep here")
    assert not (tmp_path / "outputs").exists()


def test_score_of_a_missing_file(tmp_path: Path) -> None:
    refused(blip2sweep("score", "none.json", "--references", "none.json", cwd=tmp_path), "none.json")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("backend=dumy", ("backend=dumy", "dummy")),
        ("backend=dummy backend.options.x=1", ("backend.options.x", "dummy has no such option")),
        ("backend.options.device=cpu", ("backend.options.device", "torch has no such option")),
        ("backend=dummy analysis.propagation=true", ("analysis.propagation=true", "backend=torch")),
    ],
)
def test_a_back_end_takes_what_it_knows(words: str, told: tuple[str, ...], tmp_path: Path) -> None:
    refused(blip2sweep("plan", "part=none", *words.split(), cwd=tmp_path), *told)
