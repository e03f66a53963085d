"""Words that go in: a value of a flag, a variable or a key that holds a text means itself, and a key is no number."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_module
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, OmegaConf

from blip2sweep.config.arguments import arguments
from blip2sweep.config.hydra_keys import check_hydra
from blip2sweep.config.overrides import normalise, parse
from blip2sweep.console.quoting import keys_override, override, path_override, quoted, yaml_text
from blip2sweep.errors import UserError
from tests.command_line import blip2sweep, refused
from tests.composing import composer, jobs

ODD = [
    "ü", "a=b", "lr=1,bs=2", "a(1)", "true", "1e3", "1_000", "007", "0x1f", "inf", "nan", "a,b", "a b", " a", "a ", "it's", 'say "x"',
    "a\\b", "a\\", "\\\\x", "\\'", "$HOME", "~", "{}", "[]", "{a:1}", "-x", "%", "${x}", "a\\${x}", "${", "${oc.env:HOME}", "null",
    "'q'", '"q"', "'", "#x", "a:b", "49e823001112", ".5", "@x", "*", "e\u0301",
]  # fmt: skip
NUMBERS = ["49e823001112", "000000000001", "123456789012", "1e3", "e12", "0e0", "12e4"]


def random_texts() -> list[str]:
    rng = random.Random(0)
    return ["".join(rng.choice("ab'\"\\${} ,=()[]:~?ü#-%") for _ in range(rng.randint(1, 12))) for _ in range(150)]


def test_a_quoted_text_means_itself() -> None:
    for text in [*ODD, *random_texts()]:
        (read,) = parse([override("output_dir", text)])
        assert OmegaConf.create({"x": read.value()}).x == text


def test_quotes_are_hydras_own() -> None:
    for text in (t for t in [*ODD, *random_texts()] if "${" not in t):
        assert quoted(text) in (text, QuotedString(text, Quote.single).with_quotes())
    assert quoted("outputs/run-1.2") == "outputs/run-1.2"


@pytest.mark.parametrize("text", ODD)
def test_a_flags_value_is_no_expression(text: str) -> None:
    (made,) = jobs(*arguments(["part=none", "--output-dir", text]))
    assert made.config["output_dir"] == text


@pytest.mark.parametrize("text", ["1e3", "1_000", "2026", "007", "true", "inf", "ü", "run(1)x"])
def test_a_key_that_holds_a_text_holds_no_number(text: str) -> None:
    typed = f"sweep_name='{text}'" if "(" in text else f"sweep_name={text}"
    assert composer().config((normalise(typed),))["sweep_name"] == text
    listed = [normalise(f"task.name={text if '(' not in text else repr(text)},b")]
    assert [j.config["task"]["name"] for j in jobs(*listed)] == [text, "b"]


def test_null_stays_null_and_a_number_of_a_number_stays() -> None:
    assert composer().config((normalise("sweep_name=null"),))["sweep_name"] is None
    assert composer().config((normalise("quant.bits=3"),))["quant"]["bits"] == 3


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize("typed", ["--rerun {}", "--rerun={}", "rerun=[{}]", "rerun={}", "rerun=['{}']"])
def test_a_key_is_never_a_number(key: str, typed: str) -> None:
    words = arguments(["part=none", *typed.format(key).split()])
    assert composer().config(tuple(words))["rerun"] == [key]


def test_every_key_to_run_again_counts() -> None:
    words = arguments(["--rerun", "49e823001112", "--rerun", "12,000000000001"])
    assert composer().config(tuple(words))["rerun"] == ["49e823001112", "12", "000000000001"]
    for word in ("1_000", "", "0x12", "1.5", "a" * 13):
        with pytest.raises(UserError, match="no key"):
            keys_override([word])


@pytest.mark.parametrize("text", ["", "a\nb", "a\x1b[31m", "a\x00", "a\u2028b"])
def test_a_path_that_no_line_can_show_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--output-dir"):
        path_override("output_dir", text, "--output-dir")


def test_a_key_in_yaml_is_a_text_for_every_loader() -> None:
    for key in NUMBERS:
        told = yaml_text({"key": key, "targets": [{"bits": 4}]})
        assert yaml.safe_load(told) == {"key": key, "targets": [{"bits": 4}]}
        assert key == "e12" or f'"{key}"' in told or f"'{key}'" in told


# ---- what Hydra knows and this does not


@pytest.mark.parametrize(("word", "told"), [
    ("part=glob(*)", "glob chooses among the files of a group"),
    ("quant=glob(nosuch*)", "no value at all"),
    ("quant.bits=range(3,3)", "no value at all"),
    ("quant.bits=range(2,4,0)", "must not be zero"),
    ("quant.bits=interval(2,4)", "cannot be listed"),
])  # fmt: skip
def test_sweep_functions_that_make_no_list(word: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as error:
        jobs(word)
    assert word in str(error.value)


def test_a_glob_of_a_group() -> None:
    assert [j.config["quant"]["method"] for j in jobs("quant=glob(gpt*)")] == ["gptq"]
    assert len(jobs("quant.bits=shuffle(range(2,5))", "part=sort(vit,llm)")) == 6


@pytest.mark.parametrize(("words", "told"), [
    (["-m", "--cfg", "job", "part=vit,llm"], "several values, and what is shown is the config of one cell"),
    (["--cfg", "jobb"], "invalid choice: 'jobb'"),
    (["--nosuch"], "unrecognized arguments"),
    (["--experimental-rerun", "x"], "pickle"),
    (["hydra.mode=RUN"], "everything here is a sweep"),
    (["output_dir=a,b"], "a sweep has one output_dir"),
    (["-m", "batch_size=1,2"], "a sweep has one batch_size"),
    (["--output-dir"], "no folder given"),
    (["quant.bits=2,", "3"], "ends with a comma"),
])  # fmt: skip
def test_one_line_of_the_door(words: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        arguments(words)


def test_cfg_shows_one_cell_of_a_multirun_too() -> None:
    assert arguments(["-m", "--cfg", "job", "part=vit"]) == ["--cfg", "job", "part=vit"]


def composed(words: list[str]) -> DictConfig:
    """What Hydra makes of these words, its own settings included."""
    composer()
    with initialize_config_module("blip2sweep.conf", version_base="1.3"):
        return compose("config", words, return_hydra_config=True)


@pytest.mark.parametrize(("words", "told"), [
    (["hydra.sweep.dir=x"], ["hydra.sweep.dir=x", "right: --output-dir DIR"]),
    (["hydra.run.dir=x"], ["hydra.run.dir=x", "right: --output-dir DIR"]),
    (["hydra.job.name=n"], ["hydra.job.name=n", "sweep_name=NAME"]),
    (["hydra.job.chdir=true"], ["hydra.job.chdir=true"]),
    (["+hydra.job.env_set.A=1"], ["env_set"]),
    (["hydra.output_subdir=.h"], ["output_subdir"]),
])  # fmt: skip
def test_settings_of_hydra_are_not_dropped(words: list[str], told: list[str]) -> None:
    with pytest.raises(UserError) as error:
        check_hydra(composed(words), ())
    assert all(word in str(error.value) for word in told)


def test_settings_that_are_read_are_taken(tmp_path: Path) -> None:
    for words in ([], ["hydra.launcher.workers=2"], ["hydra.verbose=true"], ["output_dir=elsewhere"]):
        check_hydra(composed(words), ())
    check_hydra(composed(["hydra.sweep.dir=x"]), ("hydra.sweep.dir",))
    refused(blip2sweep("part=none", "hydra.sweep.dir=x", cwd=tmp_path), "hydra.sweep.dir=x", "would be dropped")
    assert not (tmp_path / "outputs").exists()


def test_slurm_jobs_take_their_name_and_variables_mean_themselves(tmp_path: Path) -> None:
    words = ["part=none", "hydra/launcher=slurm", "hydra.job.name=mine"]
    ran = blip2sweep("plan", *words, cwd=tmp_path, env={"BLIP2SWEEP_OUTPUT_DIR": "a=b,c(1)${x} ü"})
    assert ran.code == 0, ran
    assert "--job-name=mine" in ran.out
    assert "a=b,c(1)${x} ü/logs" in ran.out


def test_models_of_a_users_folder_are_seen_by_every_door(tmp_path: Path) -> None:
    from blip2sweep.config.standalone import compose_cell

    (tmp_path / "site ü(1)/model").mkdir(parents=True)
    (tmp_path / "site ü(1)/model/mine.yaml").write_text("defaults: [tiny, _self_]\nname: mine\n")
    site = tmp_path / "site ü(1)"
    assert compose_cell(["part=vit"], site, {"model": "mine", "output_dir": "a=b"})["model"]["name"] == "mine"
    ran = blip2sweep("plan", "part=none", f"hydra.searchpath=['file://{site}']", "model=mine", cwd=tmp_path)
    assert ran.code == 0, ran
    with pytest.raises(UserError, match="no such folder"):
        compose_cell([], tmp_path / "nosuch")
    with pytest.raises(UserError, match="this is about one cell"):
        compose_cell(["quant.bits=2,3"])
