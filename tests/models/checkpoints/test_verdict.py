"""A checkpoint is exactly what its model config says, or refused in planning, all mistakes at once; loading is a guard."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.cache import disk as cache
from blip2sweep.doctor.checks import examine_cell
from blip2sweep.models.check import mistakes
from blip2sweep.models.checkpoints import check, inspect, verdict
from blip2sweep.models.checkpoints.child import ANSWER
from blip2sweep.models.load import load
from blip2sweep.planning.cell_builder import CellBuilder
from tests.checkpoints import (
    ROOT,
    TINY,
    believe,
    conf,
    edit,
    edit_section,
    edit_tensors,
    fails,
    t5_config,
    tiny_config,
    write_t5,
)
from tests.command_line import blip2sweep, refused
from tests.composing import composer
from tests.params import quick

Tensors = dict[str, torch.Tensor]
Change = Callable[[Path], object]
FC1, EMBEDDING = "language_model.model.decoder.layers.0.fc1.weight", "language_model.model.decoder.embed_tokens.weight"
HEAD, SHARED = "language_model.lm_head.weight", "language_model.shared.weight"
IMAGES = json.loads((TINY / "processor_config.json").read_text())["image_processor"]


@pytest.fixture(autouse=True)
def user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.USER, str(tmp_path / "user"))
    return tmp_path / "user"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "copy"))


@pytest.fixture(scope="session")
def t5_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_t5(tmp_path_factory.mktemp("t5"))


# ---- changes of a checkpoint


def both(*changes: Change) -> Change:
    return lambda folder: [change(folder) for change in changes]


def config(**fields: Any) -> Change:
    return lambda folder: edit(folder / "config.json", **fields)


def text(**fields: Any) -> Change:
    return lambda folder: edit_section(folder / "config.json", "text_config", **fields)


def processor(**fields: Any) -> Change:
    return lambda folder: edit(folder / "processor_config.json", **fields)


def picture(**fields: Any) -> Change:
    return processor(image_processor={**IMAGES, **fields})


def content(name: str, data: str) -> Change:
    return lambda folder: (folder / name).write_text(data)


def without(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def tensors(change: Callable[[Tensors], object]) -> Change:
    return lambda folder: edit_tensors(folder, change)


def beside(**named: torch.Tensor) -> Change:
    """Further tensors, named after a layer's weight."""
    return tensors(lambda t: t.update({FC1.replace("weight", end.replace("__", ".")): x for end, x in named.items()}))


def drop(words: str) -> Change:
    return tensors(lambda t: [t.pop(name) for name in list(t) if words in name])


def lora(t: Tensors) -> None:
    t[FC1.replace("weight", "base_layer.weight")] = t.pop(FC1)
    t[FC1.replace("weight", "lora_A.default.weight")] = torch.ones(2, 64)


def another_block(t: Tensors) -> None:
    t.update({n.replace("layers.5", "layers.6"): x.clone() for n, x in list(t.items()) if "layers.5" in n})


def ints() -> torch.Tensor:
    return torch.zeros(5, dtype=torch.int32)


MISTAKES: dict[str, tuple[Change, tuple[str, ...]]] = {
    # tensors
    "query tokens": (drop("query_tokens"), ("1 tensor missing: query_tokens",)),
    "embeddings": (drop("embed_tokens"), (f"1 tensor missing: {EMBEDDING}",)),
    "LayerNorms": (drop("LayerNorm"), ("30 tensors missing: qformer.encoder.layer.0.attention.output.LayerNorm.bias",)),
    "biases": (drop("qkv.bias"), ("6 tensors missing", "qkv.bias")),
    "projection": (drop("language_projection"), ("2 tensors missing", "language_projection.weight")),
    "positions": (drop("position_embedding"), ("vision_model.embeddings.position_embedding",)),
    "other names": (
        tensors(lambda t: [t.update({f"module.{n}": t.pop(n)}) for n in list(t)]),
        ("309 tensors missing", "309 tensors that the model does not have: module.", "and 305 more"),
    ),
    "a block more": (tensors(another_block), ("28 tensors that the model does not have", "layers.6.fc1.bias")),
    "adapter's tensors": (tensors(lora), ("2 tensors of an adapter", "lora_A", f"missing: {FC1}")),
    "int8 without scales": (tensors(lambda t: t.update({FC1: t[FC1].to(torch.int8)})), ("1 tensor stored as I8", FC1)),
    "LLM.int8": (beside(SCB=torch.ones(256)), ("already quantized: it holds", ".SCB")),
    "NF4": (beside(weight__absmax=torch.ones(4)), ("already quantized", ".absmax")),
    "GPTQ": (beside(qweight=ints(), qzeros=ints(), g_idx=ints()), ("already quantized", ".qweight", ".qzeros")),
    "compressed-tensors": (beside(weight_scale=torch.ones(256, 1)), ("already quantized", "weight_scale")),
    "float8": (tensors(lambda t: t.update({FC1: t[FC1].to(torch.float8_e4m3fn)})), ("stored as F8_E4M3",)),
    "booleans": (tensors(lambda t: t.update({FC1: t[FC1] > 0})), ("stored as BOOL",)),
    "transposed": (tensors(lambda t: t.update({FC1: t[FC1].t().contiguous()})), (f"{FC1} is (64, 256)", "(256, 64)")),
    "resized": (
        tensors(lambda t: t.update({EMBEDDING: torch.cat([t[EMBEDDING]] * 2)})),
        (f"{EMBEDDING} is (896, 64), the model's is (448, 64)",),
    ),
    "a name that a terminal obeys": (tensors(lambda t: t.update({"\x1b[31m": torch.ones(1)})), ("\\x1b[31m",)),
    # config.json
    "no config": (without("config.json"), ("config.json is missing",)),
    "config cut": (content("config.json", '{"a'), ("config.json: cannot be read",)),
    "config a list": (content("config.json", "[]"), ("config.json: is a JSON list",)),
    "config deep": (content("config.json", "[" * 200_000), ("config.json: cannot be read", "RecursionError")),
    "config of long numbers": (content("config.json", '{"a": ' + "1" * 5000 + "}"), ("config.json: cannot be read",)),
    "another architecture": (config(model_type="opt"), ("model_type is opt",)),
    "no architecture": (config(model_type=None), ("model_type is None",)),
    "two sizes": (
        both(text(ffn_dim=128), lambda f: edit_section(f / "config.json", "vision_config", num_hidden_layers=5)),
        ("2 mistakes", "text_config.ffn_dim is 128 in config.json, 256", "vision_config.num_hidden_layers is 5"),
    ),
    "heads": (text(num_attention_heads=8), ("text_config.num_attention_heads is 8",)),
    "endless blocks": (text(num_hidden_layers=10**9), ("text_config.num_hidden_layers is 1000000000",)),
    "size a text": (text(ffn_dim="256"), ("config.json: transformers cannot read it", "ffn_dim")),
    "section a list": (config(text_config=[]), ("config.json: transformers cannot read it",)),
    "another language model": (text(model_type="t5"), ("text_config.model_type is t5",)),
    "an unknown one": (text(model_type="nope"), ("config.json: transformers cannot read it", "nope")),
    "vocabulary too small": (text(vocab_size=100), ("tokens up to 447, text_config.vocab_size is 100", EMBEDDING)),
    "vocabulary negative": (text(vocab_size=-1), ("cannot build the model",)),
    "vocabulary endless": (text(vocab_size=10**15), (EMBEDDING,)),
    "positions in config": (text(max_position_embeddings=50), ("embed_positions.weight is (98, 64)",)),
    "EOS beyond": (text(eos_token_id=500), ("text_config.eos_token_id is 500",)),
    "no EOS": (text(eos_token_id=None), ("text_config.eos_token_id is null, so nothing would end a text",)),
    "no image token": (config(image_token_index=None), ("image_token_index is None",)),
    "another image token": (config(image_token_index=5), ("image_token_index is 5", "image token is 447")),
    "quantized": (config(quantization_config={"quant_method": "fp8"}), ("already quantized", "fp8", "understood: gptq")),
    "quantized, no method": (config(quantization_config={"load_in_8bit": True}), ("already quantized",)),
    "compressed": (config(compression_config={"format": "pack"}), ("already quantized (config.json says compression",)),
    "quantized language model": (text(quantization_config={"quant_method": "awq"}), ("text_config.quantization", "awq")),
    "other weights": (config(transformers_weights="x.safetensors"), ("transformers_weights is set",)),
    # the files beside it
    "queries": (processor(num_query_tokens=32), ("num_query_tokens is 32, the model has 12",)),
    "no queries": (processor(num_query_tokens=None), ("num_query_tokens is None, the model has 12",)),
    "no processor": (without("processor_config.json"), ("processor_config.json is missing",)),
    "processor cut": (content("processor_config.json", "{"), ("processor_config.json: cannot be read",)),
    "processor a list": (content("processor_config.json", "[]"), ("processor_config.json: is a JSON list",)),
    "picture size": (picture(size={"height": 224, "width": 224}), ("resizes to", "the model takes 48 x 48")),
    "picture of one edge": (picture(size={"shortest_edge": 48}), ("the model takes 48 x 48",)),
    "no resizing": (picture(do_resize=False), ("makes (1, 3, 10, 20) of a picture",)),
    "two means": (picture(image_mean=[0.5, 0.5]), ("fails on a picture",)),
    "division by zero": (picture(image_std=[0, 0, 0]), ("pixels that are NaN or Inf",)),
    "no tokenizer": (without("tokenizer.json"), ("the tokenizer is missing",)),
    "tokenizer cut": (content("tokenizer.json", "{"), ("the tokenizer cannot be read",)),
    "tokenizer empty": (content("tokenizer.json", "{}"), ("the tokenizer cannot be read",)),
    "tokenizer of no BOS": (without("tokenizer_config.json"), ("no pad token", "no BOS token", "tokens up to 448")),
    "generation cut": (content("generation_config.json", "{"), ("generation_config.json: cannot be read",)),
    "generation's EOS": (
        lambda f: edit(f / "generation_config.json", eos_token_id=[2, 1000]),
        ("generation_config.json: eos_token_id is 1000",),
    ),
    "one of each": (
        both(text(ffn_dim=128), processor(num_query_tokens=9), drop("query_tokens"), tensors(lora)),
        ("4 mistakes", "ffn_dim is 128", "num_query_tokens is 9", "missing: ", "query_tokens", "lora_A"),
    ),
    "a type and a processor": (
        both(text(ffn_dim="256"), processor(num_query_tokens=9), drop("query_tokens")),
        ("cannot read it", "num_query_tokens is 9", "query_tokens"),
    ),
}  # fmt: skip


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The child's work done here, which saves the import of torch. The folders that were looked at."""
    asked: list[Path] = []

    def answer(folder: Path, model: Any) -> list[str]:
        asked.append(folder)
        return mistakes(inspect(folder), model)

    monkeypatch.setattr(verdict, "_answer_of_child", answer)
    return asked


@pytest.mark.parametrize(("change", "told"), quick(MISTAKES.values(), *[*MISTAKES.values()][::4]), ids=MISTAKES)
def test_a_checkpoint_that_is_not_the_models_is_refused(
    copy: Path, in_process: list[Path], change: Change, told: tuple[str, ...]
) -> None:
    change(copy)
    with fails(str(copy), "not a checkpoint of model tiny", *told):
        check(copy, tiny_config())


RIGHT: dict[str, Change] = {
    "as it is": lambda _: None,
    "head stored too": tensors(lambda t: t.update({HEAD: t[EMBEDDING].clone()})),
    "head alone": tensors(lambda t: t.update({HEAD: t.pop(EMBEDDING)})),
    "positions of older versions": tensors(lambda t: t.update({"qformer.embeddings.position_ids": torch.arange(9)})),
    "stored in float64": tensors(lambda t: t.update({FC1: t[FC1].double()})),
    "no generation config": without("generation_config.json"),
    "a picture's processor of its own": both(
        content("preprocessor_config.json", json.dumps(IMAGES)),
        content("processor_config.json", '{"num_query_tokens": 12}'),
    ),
}


@pytest.mark.parametrize("change", RIGHT.values(), ids=RIGHT)
def test_what_is_the_model_is_taken_and_loads(copy: Path, in_process: list[Path], change: Change) -> None:
    change(copy)
    check(copy, tiny_config())
    assert load(tiny_config(), copy).model.language_model.lm_head.weight.isfinite().all()


def test_tied_tensors_that_differ_are_refused(copy: Path, in_process: list[Path]) -> None:
    edit_tensors(copy, lambda t: t.update({HEAD: t[EMBEDDING] + 1}))
    with fails(f"{EMBEDDING} and {HEAD} differ"):
        check(copy, tiny_config())


def test_numbers_that_are_none_are_told_with_everything_else(copy: Path, in_process: list[Path]) -> None:
    def broken(t: Tensors) -> None:
        t[FC1][3, 5], t[EMBEDDING][-1, -1] = float("nan"), float("-inf")

    edit_tensors(copy, broken)
    processor(num_query_tokens=7)(copy)
    with fails("2 tensors hold NaN or Inf", FC1, EMBEDDING, "num_query_tokens is 7"):
        check(copy, tiny_config())


def test_numbers_beyond_float16_are_refused_where_they_would_become_infinite(
    copy: Path, in_process: list[Path]
) -> None:
    edit_tensors(copy, lambda t: t.update({FC1: t[FC1] + 70000}))
    check(copy, tiny_config())
    check(copy, tiny_config(), half=["vision"])
    with fails("beyond what float16 can hold", FC1):
        check(copy, tiny_config(), half=["language"])
    asked = {**composer().config(("part=none", "model.dtype=float16"))}
    asked["model"] = {**asked["model"], "path": str(copy)}
    with fails("beyond what float16 can hold"):
        CellBuilder()(asked)
    assert in_process == [copy]  # the first answer serves all
    with fails("NaN or Inf in torch.float16", FC1):
        load(tiny_config(dtype="float16"), copy)


@pytest.mark.parametrize("name", ["tiny", "t5"])
def test_the_checkpoints_of_the_tests_are_right(name: str, t5_folder: Path) -> None:
    folder, model = (TINY, tiny_config()) if name == "tiny" else (t5_folder, t5_config())
    assert mistakes(inspect(folder), model) == []


@pytest.mark.parametrize("missing", [HEAD, SHARED])
def test_t5_without_one_of_its_two_tables_is_refused(t5_folder: Path, tmp_path: Path, missing: str) -> None:
    folder = Path(shutil.copytree(t5_folder, tmp_path / "copy"))
    drop(missing)(folder)
    (told,) = mistakes(inspect(folder), t5_config())
    assert told == f"1 tensor missing: {missing}"
    with fails(told):
        load(t5_config(), folder)


def test_what_t5_ignores_by_transformers_own_rule_is_no_mistake(t5_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(t5_folder, tmp_path / "copy"))
    name = "language_model.decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    edit_tensors(folder, lambda t: t.update({name: torch.ones(32, 4)}))
    assert mistakes(inspect(folder), t5_config()) == []


def test_many_mistakes_are_cut_and_counted(in_process: list[Path]) -> None:
    with fails("not a checkpoint of model blip2-flan-t5-xl", "mistakes: ", "; and ", " more"):
        check(TINY, conf("model/blip2-flan-t5-xl"))


def test_a_module_tree_that_conf_does_not_describe_is_a_mistake() -> None:
    model = json.loads(json.dumps(tiny_config()))
    model["parts"]["vit"]["layers"]["mlp"].pop("mlp.fc1")
    model["parts"]["vit"]["folds"] = []
    (told,) = mistakes(inspect(TINY), model)
    assert "mlp.fc1 is in the model but not in conf/model" in told


# ---- loading is a guard


GUARDED = ["LayerNorms", "adapter's tensors", "int8 without scales", "resized", "heads", "quantized", "other weights",
           "queries", "config cut"]  # fmt: skip


@pytest.mark.parametrize("name", GUARDED)
def test_loading_refuses_what_planning_did_not_see(copy: Path, name: str) -> None:
    change, told = MISTAKES[name]
    change(copy)
    with fails("not a checkpoint of model tiny", *told):
        load(tiny_config(), copy)


def test_loading_names_the_tensor_that_is_no_number(copy: Path) -> None:
    edit_tensors(copy, lambda t: t[FC1].view(-1).fill_(float("nan")))
    with fails("NaN or Inf", FC1):
        load(tiny_config(), copy)


def test_a_worker_refuses_weights_that_changed_since_they_were_planned(copy: Path, in_process: list[Path]) -> None:
    asked = {**composer().config(("part=none", "task.limit=2"))}
    asked["model"] = {**asked["model"], "path": str(copy)}
    job = CellBuilder()(asked).job()
    edit_tensors(copy, lambda t: t[FC1].mul_(2))
    with fails("changed since it was planned", job["columns"]["weights"]):
        TorchBackend({"device": "cpu"})(job)


# ---- once, in a child


def test_the_embedded_checkpoint_ships_its_verdict(monkeypatch: pytest.MonkeyPatch, user_cache: Path) -> None:
    """`test_the_checkpoints_of_the_tests_are_right` finds the same. Other assets or another config: mend SHIPPED."""
    monkeypatch.setattr(verdict, "_answer_of_child", None)
    found = check(TINY, tiny_config(), half=["vit", "qformer", "llm"])
    assert not any(c.not_finite or c.beyond_half for c in found.contents())
    assert not user_cache.exists()


def test_a_verdict_is_made_once_for_a_content_and_a_model(copy: Path, tmp_path: Path, in_process: list[Path]) -> None:
    (copy / "tokenizer.json").write_text((copy / "tokenizer.json").read_text() + " ")
    check(copy, tiny_config())
    check(copy, tiny_config(dtype="bfloat16"))
    other = Path(shutil.copytree(copy, tmp_path / "elsewhere"))
    check(other, tiny_config())
    assert in_process == [copy]
    model = json.loads(json.dumps(tiny_config()))
    model["config"]["text_config"]["ffn_dim"] = 128
    with fails("ffn_dim"):
        check(copy, model)
    assert in_process == [copy, copy]


def test_mistakes_are_looked_for_again(copy: Path, in_process: list[Path]) -> None:
    """They may be this machine's, such as a library that a tokenizer needs."""
    processor(num_query_tokens=7)(copy)
    for _ in range(2):
        with fails("num_query_tokens is 7"):
            check(copy, tiny_config())
    assert in_process == [copy, copy]
    processor(num_query_tokens=12)(copy)
    check(copy, tiny_config())


def test_a_folder_that_changes_while_it_is_checked_is_refused(
    copy: Path, user_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content("generation_config.json", "{}")(copy)
    monkeypatch.setattr(verdict, "_answer_of_child", lambda *_: content("generation_config.json", "{ }")(copy) and [])
    with fails("changed while it was checked"):
        check(copy, tiny_config())
    assert not list(user_cache.rglob("*.entry"))


def test_a_verdict_of_other_code_is_made_anew(copy: Path, in_process: list[Path], monkeypatch: Any) -> None:
    content("generation_config.json", "{}")(copy)
    check(copy, tiny_config())
    monkeypatch.setattr(verdict, "versions", lambda: ["transformers 6"])
    check(copy, tiny_config())
    assert len(in_process) == 2


def test_plannings_at_once_agree(copy: Path, in_process: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    content("generation_config.json", "{}")(copy)
    monkeypatch.setattr(verdict, "_answer_of_child", lambda *_: [])
    with ThreadPoolExecutor(4) as pool:
        assert len({w.fingerprint for w in pool.map(lambda _: check(copy, tiny_config()), range(8))}) == 1


NO_ANSWER = {
    "silence": ("exit 0", "ended with code 0 (it said nothing)"),
    "module that is not there": ("echo 'No module named transformers' >&2; exit 1", "(No module named transformers)"),
    "killed": ("kill -9 $$", "was killed by SIGKILL"),
    "cut": (f"echo '{ANSWER}[\"config.js'", "ended with code 0"),
    "no list": (f"echo '{ANSWER}7'", "ended with code 0"),
    "said something, then failed": (f"echo '{ANSWER}[]'; exit 3", "ended with code 3"),
    "no text": ("printf '\\377\\033[31m' >&2; exit 1", "\\x1b[31m"),
    "too long": ("exec sleep 60", "gave no answer in"),
}


@pytest.mark.parametrize(("script", "told"), NO_ANSWER.values(), ids=NO_ANSWER)
def test_a_child_without_an_answer_is_one_line_and_nothing_is_remembered(
    copy: Path, user_cache: Path, monkeypatch: pytest.MonkeyPatch, script: str, told: str
) -> None:
    content("generation_config.json", "{}")(copy)
    python = copy.parent / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(verdict, "LIMIT", 0.3 if "sleep" in script else 60)
    with fails(str(copy), "cannot be checked", told):
        check(copy, tiny_config())
    python.unlink()
    with fails("cannot be started"):
        check(copy, tiny_config())
    assert not list(user_cache.rglob("*.entry"))


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(TINY, tmp_path_factory.mktemp("damaged") / "model"))
    edit_tensors(folder, lambda t: (t.pop("query_tokens"), t[FC1].view(-1)[:1].fill_(float("nan"))))
    processor(num_query_tokens=7)(folder)
    return folder


def test_the_command_says_all_of_it_in_one_line(tmp_path: Path, damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("3 mistakes", "query_tokens", "num_query_tokens is 7", f"NaN or Inf: {FC1}")
    refused(blip2sweep("plan", "part=none", f"model.path={damaged}", cwd=tmp_path), *words)
    monkeypatch.setattr(verdict, "_answer_of_child", lambda folder, model: mistakes(inspect(folder), model))
    asked = {**composer().config(("part=none",))}
    asked["model"] = {**asked["model"], "path": str(damaged)}
    report = {line.name: line for line in examine_cell(asked)}
    assert all(word in report["weights"].message for word in words)
    assert (report["weights"].state, report["data"].state) == ("fail", "ok")
    assert not (tmp_path / "outputs").exists()


def test_planning_a_remembered_checkpoint_imports_no_torch(copy: Path) -> None:
    content("generation_config.json", "{}")(copy)
    believe(copy, tiny_config())
    code = (
        "import json, sys; from pathlib import Path; from blip2sweep.models.checkpoints import check\n"
        "check(Path(sys.argv[1]), json.load(sys.stdin)); sys.exit(any(m in sys.modules for m in ('torch', 'transformers')))"
    )
    command = [sys.executable, "-c", code, str(copy)]
    assert subprocess.run(command, input=json.dumps(tiny_config()), text=True, cwd=ROOT, check=False).returncode == 0
