"""The reference of keys: nothing of the schema is left out, and what it allows is what the code allows."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from blip2sweep.backends.backend import BACKENDS
from blip2sweep.compression.quantize import METHODS
from blip2sweep.compression.recover import LOSSES
from blip2sweep.compression.recover import METHODS as RECOVERIES
from blip2sweep.compression.sparsity import METHODS as SPARSITIES
from blip2sweep.compression.sparsity import PATTERNS
from blip2sweep.config.json_schema import schema
from blip2sweep.config.keys import keys, launcher_defaults
from blip2sweep.config.means import COMMAND
from blip2sweep.config.schema import GROUPS, OF_THE_COMMAND, known_keys
from blip2sweep.config.topics import ALIASES, TOPICS
from blip2sweep.errors import UserError
from blip2sweep.metrics.domains import DOMAINS
from blip2sweep.models.architecture import ARCHITECTURES
from blip2sweep.models.dtypes import HALF, NAMES
from blip2sweep.models.part import ROLES
from blip2sweep.tasks.mmmu import SEVERAL
from blip2sweep.tasks.settings import declared
from blip2sweep.tasks.task import FORMATS, KINDS, task_of
from scripts import write_reference

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"


def test_every_key_has_a_meaning_and_a_topic() -> None:
    sections = {topic.section for topic in TOPICS.values()}
    assert known_keys() - sections == {name for name in keys() if not name.startswith("hydra.")}
    assert set(launcher_defaults()) == {name for name in keys() if name.startswith("hydra.")}
    for key in keys().values():
        assert key.means.meaning, key.name
        assert key.allowed, key.name
        assert not key.means.meaning.endswith("."), key.name
    assert set(ALIASES.values()) <= TOPICS.keys()
    assert not ALIASES.keys() & (TOPICS.keys() | keys().keys())
    assert set(GROUPS) <= {*sections, "experiment", "study"}


def test_what_a_whole_command_has_once() -> None:
    """The same keys that a sweep over several values is refused for."""
    own = {name for name, key in keys().items() if key.means.counts == COMMAND and not name.startswith("hydra.")}
    several = {name for name in known_keys() if {name, name.split(".")[0]} & set(OF_THE_COMMAND)}
    assert own == several - {"tracking", "analysis", "evaluation"}


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("model.architecture", ARCHITECTURES),
        ("model.dtype", NAMES),
        ("model.stored", HALF),
        ("task.kind", KINDS),
        ("task.format", FORMATS),
        ("task.domain", ("all", *DOMAINS)),
        ("task.several_images", SEVERAL),
        ("quant.method", [name for name, method in METHODS.items() if method.backend is None]),
        ("quant.strategy", {strategy for method in METHODS.values() for strategy in method.strategies}),
        ("sparsity.method", SPARSITIES),
        ("sparsity.pattern", PATTERNS),
        ("recover.method", RECOVERIES),
        ("recover.loss", LOSSES),
        ("backend.name", BACKENDS),
    ],
)
def test_the_words_of_a_key_are_those_of_the_code(name: str, known: list[str]) -> None:
    assert set(keys()[name].words) == set(known)


def test_the_words_of_scoring_are_those_of_the_kinds_of_task() -> None:
    found: dict[str, set[str]] = {}
    for kind in KINDS:
        for name, values in declared(task_of(kind)).items():
            found.setdefault(f"task.{name}", set()).update(values)
    assert found == {name: set(keys()[name].words) for name in found}


def test_parts_are_offered_by_their_roles() -> None:
    assert set(ROLES) < set(keys()["part"].words)


# ---- what is made of it


def test_the_page_and_the_schema_are_as_the_script_writes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mend with `python scripts/write_reference.py`."""
    for name in ("BLIP2SWEEP_OUTPUT_DIR", "BLIP2SWEEP_DATA"):
        monkeypatch.delenv(name, raising=False)
    assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == write_reference.page()
    assert (ROOT / "docs" / "schema.json").read_text(encoding="utf-8") == write_reference.schema_text()


def mistakes(text: str, group: str | None) -> list[str]:
    return [error.message for error in jsonschema.Draft7Validator(schema(group)).iter_errors(yaml.safe_load(text))]


def files() -> list[Path]:
    return sorted(path for path in CONF.rglob("*.yaml") if path.parent.name != "sweeper")


def test_the_schema_is_one_and_every_file_of_conf_follows_it() -> None:
    jsonschema.Draft7Validator.check_schema(schema())
    for path in files():
        text, folder = path.read_text(encoding="utf-8"), path.parent.relative_to(CONF).as_posix()
        assert mistakes(text, None if folder == "." or "# @package _global_" in text else folder) == [], path


@pytest.mark.parametrize(
    ("text", "group", "told"),
    [
        ("quant: {bitz: 3}", None, "'bitz' was unexpected"),
        ("bits: 3\nquantt: 1", "quant", "'quantt' was unexpected"),
        ("batch_size: many", None, "'many' is not valid"),
        ("upstream: parts", "calibration", "'parts' is not valid"),
        ("symmetric: 2", "quant", "2 is not valid"),
        ("rule: [official, lmsm]", "task", "is not valid"),
        ("input: {bit: 8}", "quant", "'bit' was unexpected"),
        ("hydra: {launcher: {timeout_min: soon}}", None, "'soon' is not valid"),
    ],
)
def test_the_schema_sees_mistakes(text: str, group: str | None, told: str) -> None:
    assert any(told in mistake for mistake in mistakes(text, group)), mistakes(text, group)


@pytest.mark.parametrize(
    "text", ["method: ${oc.env:METHOD}", "strategy: group\ngroup_size: 48", "method: mine\nbits: 5"]
)
def test_the_schema_lets_pass_what_may_be(text: str) -> None:
    assert mistakes(text, "quant") == []


def test_a_schema_of_no_group() -> None:
    with pytest.raises(UserError, match=r"--schema qant: no such group; did you mean 'quant'\?"):
        schema("qant")
    assert json.dumps(schema("experiment")) == json.dumps(schema())
