"""Hydra's main composes the words of a sweep twice: for its mode, and for the sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hydra._internal import hydra as inner
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode

from blip2sweep.config import composed_once, schema
from blip2sweep.config.compose import Composer

WORDS = ["part=vit"]


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Iterator[inner.Hydra]:
    """Hydra as its main makes it, on our config."""
    monkeypatch.setattr(inner, "ConfigLoaderImpl", ConfigLoaderImpl)
    composed_once.install()
    schema.register()
    path = create_config_search_path("pkg://blip2sweep.conf")
    yield inner.Hydra.create_main_hydra2("test", path)
    GlobalHydra.instance().clear()


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was composed, word by word."""
    said, real = list[str](), ConfigLoaderImpl.load_configuration

    def load(self, config_name, overrides, *others):  # type: ignore[no-untyped-def]
        said.append(" ".join(overrides))
        return real(self, config_name, overrides, *others)

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", load)
    return said


def sweep(main: inner.Hydra, words: list[str]) -> object:
    return main.compose_config("config", words, run_mode=RunMode.MULTIRUN, with_log_configuration=False).part


def test_words_are_composed_once(main: inner.Hydra, composed: list[str]) -> None:
    main.get_mode("config", WORDS)
    assert sweep(main, WORDS) == "vit"
    assert composed == WORDS


def test_a_config_is_handed_out_to_two_alone(main: inner.Hydra, composed: list[str]) -> None:
    main.get_mode("config", WORDS)
    sweep(main, WORDS)
    sweep(main, WORDS)
    assert composed == WORDS * 2


def test_other_words_are_composed_anew(main: inner.Hydra, composed: list[str]) -> None:
    main.get_mode("config", WORDS)
    assert sweep(main, [*WORDS, "hydra.mode=MULTIRUN"]) == "vit"
    assert len(composed) == 2


def test_what_was_composed_without_a_check_is_checked(main: inner.Hydra) -> None:
    words = ["hydra.job.name=a,b"]
    main.get_mode("config", words)
    with pytest.raises(ConfigCompositionException, match="Sweeping over Hydra's configuration"):
        sweep(main, words)


def test_what_is_wrong_is_told_beside_a_value_with_commas(main: inner.Hydra) -> None:
    """Hydra swallows it when it asks for the mode, and then finds the value ambiguous, for it takes a sweep for a run."""
    for words, told in ((["quant.bits=3,4", "task=vqa"], "task/vqa"), (["quant.bits=3,4", "model=blip"], "model/blip")):
        assert main.get_mode("config", words) is None
        with pytest.raises(ConfigCompositionException, match=told):
            main.compose_config("config", [*words, "hydra.mode=RUN"], run_mode=RunMode.RUN)
    with pytest.raises(ConfigCompositionException, match="Ambiguous"):
        main.compose_config("config", ["quant.bits=3,4"], run_mode=RunMode.RUN)


def test_what_was_wrong_before_is_not_told_again(main: inner.Hydra, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook composes the same words twice, and mends something in between."""
    for told in ("first", "then"):
        monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", raising(told))
        with pytest.raises(ValueError, match=told):
            main.config_loader.load_configuration("config", ["task=mine"], RunMode.RUN)


def raising(told: str) -> Callable[..., None]:
    def load(*given: object) -> None:
        raise ValueError(told)

    return load


# ---- the cells of a sweep


def of_cells(main: inner.Hydra, words: list[str], choice: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The plain config of cells with these choices from groups: of what the sweep was composed to, and as Hydra alone
    composes it."""
    main.get_mode("config", words)
    master = main.compose_config("config", words, run_mode=RunMode.MULTIRUN, with_log_configuration=False)
    with pytest.MonkeyPatch.context() as patch:
        ours = Composer(main.config_loader, master)._base(choice)[1]
        patch.setattr(composed_once.ConfigLoader, "unset", lambda *given: None)
        return ours, Composer(main.config_loader, master)._base(choice)[1]


@pytest.mark.parametrize(
    ("words", "choice", "times"),
    [
        (["part=vit,llm", "quant.bits=3", "output_dir=there"], (), 2),
        (["quant=gptq", "part=vit", "task.limit=4"], ("quant=gptq",), 2),
        (["quant=gptq,rtn", "part=vit"], ("quant=gptq",), 3),
        (["quant=gptq,rtn", "part=vit"], (), 3),
    ],
)
def test_cells_have_the_config_that_hydra_composes(
    main: inner.Hydra, composed: list[str], words: list[str], choice: tuple[str, ...], times: int
) -> None:
    ours, plain = of_cells(main, words, choice)
    assert ours == plain
    assert len(composed) == times  # the sweep, as Hydra alone does it, and ours where the sweep chose otherwise


def test_a_primary_config_of_the_user_is_composed(main: inner.Hydra) -> None:
    main.get_mode("config", WORDS)
    master = main.compose_config("config", WORDS, run_mode=RunMode.MULTIRUN, with_log_configuration=False)
    loader = main.config_loader
    assert isinstance(loader, composed_once.ConfigLoader)
    assert loader.unset(master, ["part=llm"]).part == "llm"  # type: ignore[union-attr]
    place = next(s for s in master.hydra.runtime.config_sources if s.provider == "main")
    place.path = "/a/folder/of/mine"  # with --config-path, whatever its name is
    assert loader.unset(master, []) is None
    place.path = "blip2sweep.conf"
    assert loader.unset(master, []) is not None
    master.hydra.job.config_name = "mine"
    assert loader.unset(master, []) is None
