"""A user's own folder in place of the default model: `model.path=FOLDER` alone. No torch here.

Its parts, prompts and chat are those of the model of conf/model that fits, its sizes those of its config.json. With another
language model than that one's, its chat is its own template.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import cast

from blip2sweep.console.printing import say
from blip2sweep.errors import UserError
from blip2sweep.models import fitting
from blip2sweep.models.checkpoints import shown
from blip2sweep.models.config_file import read_object
from blip2sweep.models.dtypes import NAMES
from blip2sweep.models.fields import field, named
from blip2sweep.models.location import locate
from blip2sweep.models.own_config import OwnConfig, read
from blip2sweep.models.part import LANGUAGE
from blip2sweep.models.shipped import model_config, shipped_models
from blip2sweep.wire.model_section import ModelSection

Known = Mapping[str, ModelSection]  # models of conf/model and of the user's own folder, by name
PLACES = ("model.path", "model.hub_id")
SAID = ("model.config", "model.parts", "model.architecture", "model.family")  # who says these describes a model himself
TEMPLATE = "template"  # the checkpoint's own chat template
MINE = ("prompts", "adapter", "not_addressable")  # entries that the user sets stand over those of the model that fits


class OwnFolders:
    """The sections of the folders of one command. Each folder is read once, and its name belongs to it alone.

    others: names of the user's own models. composed: the section of one of them.
    """

    def __init__(
        self, others: Callable[[], Sequence[str]] = tuple, composed: Callable[[str], ModelSection] = model_config
    ) -> None:
        self._others, self._composed = others, composed
        self._made: dict[Path, ModelSection | UserError | None] = {}
        self._folders: dict[str, Path] = {}

    def settled(self, section: ModelSection, typed: Collection[str]) -> ModelSection:
        """The section `model` of a cell that names no model.

        section: composed, with what the user typed. typed: the keys typed, such as `model.dtype`. It is returned as it
        is where no folder is typed, where the folder has its architecture and sizes, and where the user describes the
        model. Raises UserError, one line, for a folder that no known model fits.
        """
        if not set(PLACES) & set(typed) or any(key.startswith(SAID) for key in typed):
            return section
        folder = locate(section).folder
        if folder not in self._made:
            try:
                self._made[folder] = self._named_alone(_own(section, folder, self._known), folder)
            except UserError as error:  # an error is found once, too
                self._made[folder] = error
        found = self._made[folder]
        if isinstance(found, UserError):
            raise found.with_traceback(None)
        return section if found is None else _over(section, typed, found)

    @cached_property
    def _known(self) -> Known:
        shipped = {name: model_config(name) for name in shipped_models()}
        return {**shipped, **{name: self._composed(name) for name in self._others()}}

    def _named_alone(self, found: ModelSection | None, folder: Path) -> ModelSection | None:
        first = self._folders.setdefault(found["name"], folder) if found else folder
        if found and first.resolve() != folder.resolve():
            raise UserError(
                f"model.path={folder}: rows go by the name of a folder, and {first} has the name {found['name']} too; right: "
                f"another name for one of them"
            )
        return found


def _own(section: ModelSection, folder: Path, known: Known) -> ModelSection | None:
    """The section of a folder. None where the folder has the architecture and sizes of `section`."""
    data, _ = read_object(folder / "config.json")
    models = {n: m for n, m in known.items() if data is not None and fitting.model_type(m) == data.get("model_type")}
    if data is not None and _same(section, data, data) and _told(data) in (None, _told_by(known[section["name"]])):
        return None
    if data is not None and not models:
        raise _no_model(folder, data, known)
    own = read(folder, models)
    cls = _class(folder, own, section["name"])
    if _same(section, own.data, own.full) and cls == own.classes.get(section["name"]):
        return None
    return _made(folder, own, {n: m for n, m in models.items() if own.classes[n] == cls}, known)


def _same(section: ModelSection, data: Mapping[str, object], fields: Mapping[str, object]) -> bool:
    """Whether config.json has the type and all sizes of a section."""
    if data.get("model_type") != fitting.model_type(section):
        return False
    return all(field(path, fields) == value for path, value in named(section["config"]))


def _told(data: Mapping[str, object]) -> str | None:
    """The class that a config.json names."""
    told = data.get("architectures")
    return str(told[0]) if isinstance(told, list) and told else None


def _told_by(default: ModelSection) -> str | None:
    return _told(read_object(locate(default).folder / "config.json")[0] or {})


def _class(folder: Path, own: OwnConfig, default: str) -> str | None:
    """The class of a folder: the one that config.json names, or where it names none of these the default model's.

    Raises UserError where models of its type are of several classes and neither says which.
    """
    classes = list(dict.fromkeys(own.classes.values()))
    if (told := _told(own.data)) in classes or len(classes) == 1:
        return told if told in classes else classes[0]
    if default not in own.classes:
        raise UserError(
            f"model.path={folder}: config.json: architectures names {shown(told)}; right: one of {', '.join(map(str, classes))}"
        )
    return own.classes[default]


def _no_model(folder: Path, data: Mapping[str, object], known: Known) -> UserError:
    types = ", ".join(sorted({fitting.model_type(m) for m in known.values()}))
    code = "; it names code of its own (auto_map), which is never run" if data.get("auto_map") else ""
    return UserError(
        f"model.path={folder}: config.json: model_type is {shown(data.get('model_type'))}, and conf/model has {types}{code}; "
        f"right: one of these, or `blip2sweep model add {folder}` for another image-text-to-text model"
    )


# ---- made of what is known


def _made(folder: Path, own: OwnConfig, models: Known, known: Known) -> ModelSection:
    """models: those of the folder's class."""
    base, parts = fitting.parts(folder, own, models, known)
    config = fitting.sizes(base, parts, own)
    new = {"config": config, "parts": parts, "tied": fitting.tied(base, own), "dtype": dtype(own.data), "hub_id": None}
    if _asked_otherwise(folder, base, own):
        new["chat"] = TEMPLATE
        say(f"{folder}: another language model than that of {base['name']}, so its own chat template is used", err=True)
    return _renamed(ModelSection(**{**base, **new, "name": folder_name(folder)}), folder, known)  # type: ignore[typeddict-item]


def _asked_otherwise(folder: Path, base: ModelSection, own: OwnConfig) -> bool:
    """Whether the text that a model of conf/model gives as `chat` is not the folder's.

    That text belongs to one language model. Another kind has a template of its own, and so may have another of the same
    kind, which its vocabulary tells (Llama 3 in place of Vicuna).
    """
    if base.get("chat") in (None, TEMPLATE):
        return False
    fields = [f"{fitting.INNER[LANGUAGE]}.{name}" for name in ("model_type", "vocab_size")]
    kind, words = (field(path, own.full) == field(path, base["config"]) for path in fields)
    return not kind or (not words and _has_template(folder))


def _has_template(folder: Path) -> bool:
    """Whether a folder has a chat template, in a file of its own or in the settings of its tokenizer or processor."""
    settings = (read_object(folder / name)[0] or {} for name in ("tokenizer_config.json", "processor_config.json"))
    return any(folder.glob("chat_template*")) or any(one.get("chat_template") for one in settings)


def folder_name(folder: Path) -> str:
    """The name of a folder, or of the model whose snapshot in a Hugging Face cache it is."""
    whole = folder.absolute()
    hub = next((p.name for p in whole.parents if p.name.startswith("models--")), None)
    return hub.rpartition("--")[2] if hub and whole.parent.name == "snapshots" else whole.name


def _renamed(found: ModelSection, folder: Path, known: Known) -> ModelSection:
    """With its parent's name before its own where a known model of other parts or sizes has that name."""
    other = known.get(found["name"])
    if other is None or (_sizes(other) == _sizes(found) and other["parts"] == found["parts"]):
        return found
    return ModelSection(**{**found, "name": f"{folder.absolute().parent.name}/{found['name']}"})


def _sizes(model: ModelSection) -> dict[str, object]:
    return dict(named(model["config"]))


def dtype(config: Mapping[str, object]) -> str:
    """The dtype that a config names, for the whole or for the language model; float32 where it names none of ours."""
    text = config.get("text_config")
    sections = [config, text if isinstance(text, Mapping) else {}]
    told = [str(s.get(key)).removeprefix("torch.") for s in sections for key in ("dtype", "torch_dtype")]
    return next((name for name in told if name in NAMES), "float32")


def _over(section: ModelSection, typed: Collection[str], found: ModelSection) -> ModelSection:
    """The section that was found, with what the user typed over it."""
    heads = {key.split(".")[1] for key in typed}
    mine: dict[str, object] = {k: v for k, v in section.items() if k in heads}
    for name in MINE:
        if isinstance(over := mine.get(name), Mapping):
            mine[name] = {**cast("Mapping[str, object]", found.get(name) or {}), **over}
    return ModelSection(**{**section, **found, **mine})  # type: ignore[typeddict-item]
