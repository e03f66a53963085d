"""Makes cells from composed configs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from blip2sweep.backends.backend import Asked
from blip2sweep.canonical import canonical_json
from blip2sweep.compression.drop_blocks import asks_influence, numbers
from blip2sweep.compression.drop_blocks import check as check_dropped
from blip2sweep.errors import UserError
from blip2sweep.models.architecture import family, requests
from blip2sweep.models.part import Part
from blip2sweep.planning.cell import Cell
from blip2sweep.planning.chosen_backend import chosen_backend, runs_graphs
from blip2sweep.planning.chosen_chat import chosen_chat
from blip2sweep.planning.held import check_untouched, refuse_graphs
from blip2sweep.planning.influence import USED, Values, asked_parts, influence, least_first
from blip2sweep.planning.model import Model, check_original, original_section, planned_model
from blip2sweep.planning.trained_on import split_of, training_of, used_of_samples
from blip2sweep.recipe import Recipe, resolve_recipe
from blip2sweep.recipe.back_end import check_text_only
from blip2sweep.recipe.calibrated import check_packed, measured_parts, stamped
from blip2sweep.recipe.compact import number_word
from blip2sweep.recipe.trained import check_trainable, recovery_of
from blip2sweep.recipe.trained import stamped as trained
from blip2sweep.tasks import TaskData, load_task, with_scoring
from blip2sweep.tasks.calibration import Calibration, calibration, check, settings
from blip2sweep.tasks.disjoint import check_disjoint, check_other_pictures
from blip2sweep.tasks.generation import Generation, resolve_generation
from blip2sweep.tasks.question_text import prompts
from blip2sweep.tasks.settings import settled, task_settings, without_scoring
from blip2sweep.tasks.task import check_installed, task_of
from blip2sweep.wire.model_section import ModelSection


class CellBuilder:
    """Makes cells from composed configs. A model, task or generation setting that several cells share is read once."""

    def __init__(self) -> None:
        self._memo: dict[tuple[str, str], Any] = {}

    def __call__(self, config: Mapping[str, Any]) -> Cell:
        """The cell of a composed config. Raises UserError for a config that cannot be run; the same error for every
        cell that shares its cause."""
        model = self._once("model", config["model"], planned_model)
        drop, measured_by = config.get("drop_blocks"), frozenset[str]()
        if asks_influence(drop):
            config, measured_by = {**config, "drop_blocks": self._by_influence(config, model, str(drop))}, USED
        original = self._original(config["model"], model)
        recipe = resolve_recipe(config, model.anatomy)
        if model.held is not None:
            check_untouched(model.held, recipe)
        config = {**config, "task": settled(config["task"])}
        task_config, task = config["task"], self._task(config["task"])
        _check_requests(model, task)
        request = [config["generation"], task.kind, model.presets, model.config.get("prompts")]
        generation, used = self._once("generation", request, lambda a: resolve_generation(*a))
        self._once(
            "texts",
            [*request, without_scoring(task_config), model.image_token],
            lambda a: _check_texts(task, generation, a[-1]),
        )
        check_packed(recipe, model.dtypes, (config.get("calibration") or {}).get("upstream", "full"))
        check_trainable(recipe)
        asked = Asked(recipe, model.config, generation, task.rules.REQUESTS)
        backend = chosen_backend(config.get("backend"), asked)
        if model.held is not None and backend is not None and runs_graphs(backend):
            refuse_graphs(model.held, backend["name"])
        samples = self._calibration(config, model, recipe, task)
        if samples is not None:
            recipe = stamped(recipe, samples.digest)
        spec = recovery_of(recipe)
        training = training_of(config, spec, model, task, samples, self._once) if spec else None
        if training is not None:
            recipe = trained(recipe, training.digest)
            used |= used_of_samples(config)
        chat, of_chat = self._once("chat", [config.get("chat"), task.kind], lambda a: chosen_chat(a[0], task))
        used |= of_chat | measured_by
        cell = Cell(
            model, recipe, task, task_config, generation, used | recipe.used, samples, backend, chat, training, original
        )
        cell.check_outside()
        return cell

    def _original(self, section: ModelSection, model: Model) -> Model | None:
        """The model that a quantized checkpoint is compared with; None where none is asked for."""
        asked = original_section(section)
        found: Model | None = self._once("model", asked, planned_model) if asked else None
        check_original(model, found)
        return found

    def _task(self, config: Mapping[str, Any]) -> TaskData:
        """The task of a section. What differs in scoring alone is read once."""
        self._once("settings", config, task_settings)
        whole = self._once("task", without_scoring(config), _with_content)
        found: TaskData = self._once("scored", config, lambda c: _scorable(with_scoring(whole, c)))
        return found

    def _calibration(
        self, config: Mapping[str, Any], model: Model, recipe: Recipe, task: TaskData
    ) -> Calibration | None:
        """The samples that the recipe's calibrated layers are measured on. None when the recipe has no such layers."""
        measured = measured_parts(recipe)
        if measured and config["calibration"]["text_only"]:
            check_text_only(recipe, config["calibration"]["name"])
        return self._samples(config, model, measured, task) if measured else None

    def influence(self, config: Mapping[str, Any], model: Model, measured: Sequence[Part]) -> Values:
        """The influence of blocks on the calibration samples of a cell. measured: the parts that are asked for."""
        whole = {**config, "task": settled(config["task"])}
        samples = self._samples(whole, model, measured, self._task(whole["task"]))
        request = [model.config, model.fingerprint, samples.identity, str(config["output_dir"])]
        found: Values = self._once("influence", request, lambda a: influence(model, samples, Path(a[-1])))
        return found

    def _by_influence(self, config: Mapping[str, Any], model: Model, text: str) -> str:
        """`drop_blocks` with numbers in place of what is measured on calibration samples."""
        check_dropped(text, model.anatomy)
        values = self.influence(config, model, asked_parts(text, model.anatomy))
        found = numbers(text, model.anatomy, lambda part, stack: least_first(values, part, stack))
        return "+".join(f"{part}:{number_word(blocks)}" for part, blocks in found.items())

    def _samples(
        self, config: Mapping[str, Any], model: Model, measured: Sequence[Part], task: TaskData
    ) -> Calibration:
        """The calibration samples of a cell whose parts `measured` see them. config: its task is settled."""
        section, evaluated = config["calibration"], without_scoring(config["task"])
        check(section)
        split_config = self._once("split", [section, evaluated], lambda both: settings(*both))
        key = "calibration.split" if section.get("split") else "task.train_split"
        split = self._once("samples", split_config, lambda c: split_of(c, key))
        _check_text_only(section, measured, split, model)
        self._once("disjoint", [split_config, evaluated], lambda both: check_disjoint(split, both[0], task, both[1]))
        request = [section, split_config, config["generation"], model.presets, model.config.get("prompts")]
        samples: Calibration = self._once("calibration", request, lambda a: _hashed(calibration(a[0], split, *a[1:])))
        if not section["text_only"]:
            shared = [section["n_samples"], section["seed"], split_config, evaluated]
            self._once("pictures", shared, lambda a: check_other_pictures(samples.data, a[2]["split"], task))
        return samples

    def _once(self, kind: str, section: Any, make: Callable[[Any], Any]) -> Any:
        """The object made from a config section; made once for each kind and content of the section. Raises its
        UserError every time."""
        name = (kind, canonical_json(section))
        if name not in self._memo:
            try:
                self._memo[name] = make(section)
            except UserError as error:  # an error is found once, too
                self._memo[name] = error
        found = self._memo[name]
        if isinstance(found, UserError):
            raise found.with_traceback(None)
        return found


def _with_content(config: Mapping[str, Any]) -> TaskData:
    """The task with its images hashed. Raises UserError for an image that cannot be read."""
    task = load_task(config)
    assert task.content  # computed at the first access
    return task


def _scorable(task: TaskData) -> TaskData:
    """The task, if it can be scored here as it is asked: a lack is told before inference, not after it."""
    check_installed(task)
    return task


def _check_texts(task: TaskData, generation: Generation, token: str | None) -> None:
    """Raise UserError where a prompt, or the text of a sample, holds what stands for a picture. token: None is nothing."""
    own, prompt = task_of(task.kind), generation.prompt or ""
    if token and token in prompt:
        raise UserError(f"generation.prompt={prompt!r}: holds {token}, which stands for the picture; right: without it")
    texts = prompts(own, task.samples, prompt, generation.question) if token else [""] * len(task.samples)
    held = [s.id for s, text in zip(task.samples, texts, strict=True) if token and token in text]
    if held:
        raise UserError(
            f"task {task.name}: {token} stands for the picture, and the texts of {len(held)} samples hold it, such as that "
            f"of {held[0]}; right: samples without it"
        )


def _hashed(samples: Calibration) -> Calibration:
    """The samples with their identity computed, so that its errors are raised here."""
    assert samples.identity
    return samples


def _check_requests(model: Model, task: TaskData) -> None:
    """Raise UserError where the model does not answer what the task asks."""
    asked, answered = task.rules.REQUESTS, requests(model.config)
    wrong = [request for request in asked if request not in answered]
    if wrong:
        raise UserError(
            f"task={task.name}: requests {', '.join(wrong)}, and model {model.name} answers {', '.join(answered)} alone; "
            f"right: a model or a task of the other's kind"
        )


def _check_text_only(config: Mapping[str, Any], measured: Sequence[Part], split: TaskData, model: Model) -> None:
    """Raise UserError when calibration without images cannot reach a part that is measured."""
    text_parts = [part.name for part in model.anatomy.parts.values() if part.reads_text]
    need_images = [part.name for part in measured if part.name not in text_parts]
    if config["text_only"] and need_images:
        others = f"part={'+'.join(text_parts)}, or " if text_parts else ""
        raise UserError(
            f"calibration={config['name']}: has no images, which {need_images[0]} needs; right: {others}calibration=task"
        )
    if config["text_only"] and family(model.config).prompt_alone and not split.rules.ASKS:
        raise UserError(
            f"calibration={config['name']}: a {split.kind} has no question, so the encoder of {model.name} would "
            f"read the same few tokens every time; right: calibration=task, or questions: calibration=vqav2 "
            f"calibration.text_only=true"
        )
