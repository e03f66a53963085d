"""`+experiment=NAME`: files of values and choices, the user's own and those of conf/experiment."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from blip2sweep.config.compose import Composer
from blip2sweep.config.grid import expand
from blip2sweep.config.overrides import explain, normalise
from blip2sweep.config.standalone import composer
from blip2sweep.errors import UserError
from blip2sweep.planning.plan import PlannedJob
from tests.command_line import blip2sweep, refused

FILES = {
    "small": "defaults:\n  - override /quant: gptq\nquant: {bits: 3}\ntask: {limit: 20}\n",
    "grid": "study: [[part=vision, 'quant.bits=2,4']]\ntask: {limit: 20}\n",
    "half": "part: language\nbatch_size: 4\n",
    "whole": "part: vision\nbatch_size: 8\n",
    "other_model": "defaults:\n  - override /model: tiny-llava\npart: language\nlayers: up_proj\n",
    "folder": "model: {path: /somewhere}\n",
    "elsewhere": "output_dir: elsewhere\ndefaults:\n  - override /backend: dummy\n",
    "cluster": "defaults:\n  - override /hydra/launcher: slurm\nhydra: {launcher: {partition: gpux}}\nbackend: {name: dummy}\n",
    "search": "defaults:\n  - override /hydra/sweeper: optuna_best\nbackend: {name: dummy}\n",
    "unknown": "quant: {bitz: 3}\n",
    "typo": "batch_size: many\n",
    "no_study": "study: [part=vision]\n",
}


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mine")
    (folder / "experiment").mkdir()
    for name, text in FILES.items():
        (folder / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\n{text}")
    (folder / "experiment" / "team").mkdir()
    (folder / "experiment" / "team" / "low.yaml").write_text("# @package _global_\nquant: {bits: 2}\n")
    (folder / "experiment" / "no_package.yaml").write_text("quant: {bits: 3}\n")
    return folder


@functools.cache
def loaded(mine: Path) -> Composer:
    return composer(mine)


def jobs(mine: Path, *words: str, master: DictConfig | None = None) -> list[PlannedJob]:
    """The jobs of one command. master: what Hydra's main composes, where it has more than the defaults."""
    made, arguments = Composer(loaded(mine).loader, master or loaded(mine).master), [normalise(word) for word in words]
    made.check(arguments)
    return [PlannedJob(job, made.config(job)) for job in expand(arguments, made)]


@pytest.mark.thorough
def test_values_and_choices_of_a_file_and_words_go_before_them(mine: Path) -> None:
    (job,) = jobs(mine, "+experiment=small", "part=vision", "quant.bits=2")
    assert (job.config["quant"]["method"], job.config["quant"]["bits"], job.config["task"]["limit"]) == ("gptq", 2, 20)
    (job,) = jobs(mine, "experiment=small", "quant=rtn")
    assert (job.config["quant"]["method"], job.config["quant"]["bits"]) == ("rtn", 3)


@pytest.mark.thorough
def test_several_experiments_a_glob_and_a_folder_of_them(mine: Path) -> None:
    made = jobs(mine, "+experiment=small,other_model", "quant.bits=2,4")
    assert [(j.config["model"]["name"], j.config["quant"]["bits"]) for j in made] == [
        ("tiny", 2), ("tiny", 4), ("tiny-llava", 2), ("tiny-llava", 4)
    ]  # fmt: skip
    assert [j.config["quant"]["method"] for j in jobs(mine, "+experiment=glob(int4*)")] == ["gptq"]
    assert [j.config["quant"]["bits"] for j in jobs(mine, "+experiment=team/low")] == [2]


def test_a_study_in_an_experiment_makes_its_cells(mine: Path) -> None:
    made = jobs(mine, "+experiment=grid")
    assert [(j.config["part"], j.config["quant"]["bits"]) for j in made] == [("vision", 2), ("vision", 4)]
    assert {j.config["task"]["limit"] for j in made} == {20}
    assert len(jobs(mine, "+experiment=quick")) == 6


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["+experiment=grid", "quant.bits=8"], "quant.bits=8: experiment=grid sets quant.bits itself"),
        (["+experiment=half,whole"], "experiment=whole: batch_size=8, and 4 with experiment=half: one command has one"),
        (["+experiment=small,cluster"], "experiment=cluster: sets hydra.launcher, which a command has once"),
        (
            ["+experiment=folder"],
            "experiment=folder: model.path=/somewhere without a model; right: `override /model: NAME`",
        ),
        (["+experiment=no_study"], "experiment=no_study: not a list of override lists"),
        (["+experiment=null"], "experiment=null: null is no choice of experiment; right: leave it out"),
        (["+experiment=grid", "study=null"], "study=null: null is no choice of study"),
        (["+experiment=smal"], "experiment=smal: no such experiment; did you mean 'small'?"),
        (["+experiment=other_model", "layers=fc1", "blocks=each"], None),
    ],
)
def test_what_cannot_be_meant(mine: Path, words: list[str], told: str | None) -> None:
    if told is None:  # blocks are counted in the experiment's model
        assert len(jobs(mine, *words)) == len(jobs(mine, "model=tiny-llava", "part=language", *words[1:]))
        return
    with pytest.raises(UserError) as error:
        jobs(mine, *words)
    assert str(error.value).startswith(told)


def test_one_command_may_say_it_for_all(mine: Path) -> None:
    assert {j.config["batch_size"] for j in jobs(mine, "+experiment=half,whole", "batch_size=2")} == {2}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "unknown",
            "experiment/unknown.yaml: Key 'bitz' not in 'QuantConfig' (quant.bitz); did you mean 'quant.bits'?",
        ),
        ("typo", "(batch_size); right: see blip2sweep --help batch_size"),
        ("no_package", "right: `# @package _global_` as the file's first line"),
    ],
)
def test_mistakes_in_a_file_are_told_with_its_name(mine: Path, name: str, told: str) -> None:
    with pytest.raises(HydraException) as error:
        jobs(mine, f"+experiment={name}")
    assert told in explain(error.value)


@pytest.mark.thorough
def test_an_experiment_says_where_results_are(mine: Path) -> None:
    searched = loaded(mine).master.hydra.overrides.hydra
    whole = loaded(mine).loader.load_configuration("config", [*searched, "experiment=elsewhere"], RunMode.MULTIRUN)
    assert jobs(mine, "+experiment=elsewhere", master=whole)[0].config["output_dir"] == "elsewhere"
    assert jobs(mine, "+experiment=elsewhere")[0].config["output_dir"] == "elsewhere"  # called from Python
    (job,) = jobs(mine, "+experiment=elsewhere", "output_dir=there")
    assert job.config["output_dir"] == "there"


@pytest.mark.thorough
def test_an_experiment_chooses_the_launcher(mine: Path, tmp_path: Path) -> None:
    """As typed: our own choice of launcher does not stand over it."""
    env = {"PATH": str(tmp_path)}
    ran = blip2sweep("plan", "--config-dir", str(mine), "+experiment=cluster", "part=none", cwd=tmp_path, env=env)
    assert ran.code == 0, ran.err
    assert "#SBATCH --partition=gpux" in ran.out
    refused(
        blip2sweep("--config-dir", str(mine), "+experiment=unknown", cwd=tmp_path),
        "experiment/unknown.yaml: Key 'bitz'",
    )
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    refused(blip2sweep("plan", "--config-dir", str(mine), "+experiment=search", cwd=tmp_path), "decided while it runs")
    assert list(tmp_path.iterdir()) == []
