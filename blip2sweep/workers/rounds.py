"""The rounds of a cell of the in-context pipeline: what the vision-language model is asked, and what it said.

A round is a job of its own to the back end. What it said is kept in a file, named by all that determines it, so that a
cell which waits for a chat model computes nothing twice, and cells that differ in the chat model alone share it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import cast

from blip2sweep.backends.backend import Answered
from blip2sweep.canonical import digest
from blip2sweep.chat.asking import Lacking
from blip2sweep.errors import UserError
from blip2sweep.files import read_json, write_json
from blip2sweep.rows import Id
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.tasks.rounds import ANSWERS, CAPTIONS
from blip2sweep.tasks.sample import Sample
from blip2sweep.wire.pack import CellJob, GenerationJob, RoundJob, TaskJob

FOLDER = ("cache", "rounds")  # in the output_dir
Ask = Callable[[CellJob], Answered]


def round_job(job: CellJob, name: str, texts: Sequence[Sequence[str]] | None = None) -> CellJob:
    """The job of a round. Its key is that of all that determines what is said, whatever the chat model. It is nobody's
    baseline, and of what is generated for the chat model no likelihood is measured."""
    chat = job["chat"]
    own = name == ANSWERS
    generation = job["generation"] if own else cast("GenerationJob", chat["rounds"][name])
    asked: RoundJob = {"name": name} if texts is None else {"name": name, "texts": [list(own) for own in texts]}
    nll_references = job["task"]["nll_references"] if own else 0
    task = {k: v for k, v in job["task"].items() if k != "variant"}
    task |= {"round": asked, "nll_references": nll_references}
    key = digest([chat["origin"], asked, generation, nll_references])[:24]
    rest = {k: v for k, v in job.items() if k != "chat"}
    made = {**rest, "key": key, "baseline": "", "task": cast("TaskJob", task), "generation": generation}
    return cast("CellJob", made)


def jobs_of(job: CellJob) -> list[CellJob]:
    """What a back end is asked for a cell, as far as it is known before a chat model replies."""
    if "chat" not in job:
        return [job]
    return [round_job(job, name) for name in (ANSWERS, CAPTIONS) if name == ANSWERS or name in job["chat"]["rounds"]]


@dataclass
class CellRounds:
    """What the model says for one cell. ask: None where there is no model to ask. answered: {name: the round}."""

    job: CellJob
    samples: Sequence[Sample]
    output_dir: Path
    ask: Ask | None
    answered: dict[str, Answered] = field(default_factory=dict)

    @cached_property
    def seen(self) -> list[int]:
        """The places of the samples that a chat model is asked about: without those whose picture could not be read, where
        that is known. The methods below have a value for each of them."""
        try:
            said = self._by_id(ANSWERS)
        except Lacking:
            return list(range(len(self.samples)))
        return [i for i, s in enumerate(self.samples) if s.id in said]

    def answers(self) -> list[str]:
        places = self.seen
        if ANSWERS not in self.answered:  # another process may write it from now on, but these places are not of it
            raise Lacking(rounds=[ANSWERS])
        said = self._by_id(ANSWERS)
        return [said[self.samples[i].id] for i in places]

    def captions(self) -> list[str]:
        said = self._by_id(CAPTIONS)
        return [said[self.samples[i].image_id] for i in self.seen]

    def said(self, name: str, texts: Sequence[Sequence[str]]) -> list[list[str]]:
        asked = dict(zip(self.seen, texts, strict=True))
        said = self._by_id(name, [asked.get(i, ()) for i in range(len(self.samples))])
        return [[said[f"{k} of {self.samples[i].id}"] for k in range(len(own))] for i, own in asked.items()]

    def _by_id(self, name: str, texts: Sequence[Sequence[str]] | None = None) -> dict[Id, str]:
        """{sample: text}, without samples whose picture could not be read."""
        if texts is not None and not any(texts):
            return {}
        job = round_job(self.job, name, texts)
        found = self.answered.get(name) or read_round(self.output_dir, job["key"])
        if found is None:
            if self.ask is None:
                raise Lacking(rounds=[name])
            found = self.ask(job)
            write_round(self.output_dir, job["key"], found)
        self.answered[name] = found
        return dict(zip(found.predictions.id, found.predictions.text or (), strict=True))


def write_round(output_dir: Path, key: str, answered: Answered) -> None:
    """Keep a round, whole or not at all. Raises UserError when the disk refuses."""
    kept = {
        "predictions": answered.predictions.columns,
        "hash": answered.predictions.hash,
        "cost": answered.cost,
        "layers_changed": answered.layers_changed,
        "provenance": answered.provenance,
    }
    write_json(_path(output_dir, key), kept)


def read_round(output_dir: Path, key: str) -> Answered | None:
    """A round that was kept; None where there is none, or a damaged one, which is then computed again."""
    try:
        kept: Mapping[str, object] = read_json(_path(output_dir, key))
        predictions = Predictions(**cast("Mapping[str, list[object]]", kept["predictions"]))  # type: ignore[arg-type]
        if predictions.hash != kept["hash"]:
            return None
        rest = {name: kept[name] for name in ("cost", "layers_changed", "provenance")}
    except (UserError, OSError, KeyError, TypeError, ValueError):
        return None
    return Answered(predictions, **rest)  # type: ignore[arg-type]


def _path(output_dir: Path, key: str) -> Path:
    return output_dir.joinpath(*FOLDER) / f"{key}.json"
