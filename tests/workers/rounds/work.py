"""A worker's way with cells that are run in rounds, on the dummy back end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from blip2sweep.backends.backend import Answered
from blip2sweep.backends.dummy import Dummy
from blip2sweep.results import looking, prefixes
from blip2sweep.results.ledger import Journal, Ledger
from blip2sweep.results.predictions import read_predictions, stem
from blip2sweep.wire.stopping import LookAnswer, LookRequest
from blip2sweep.workers.by_rounds import ByRounds
from blip2sweep.workers.run_cell import run_cell
from blip2sweep.workers.signals import Stop

WORDS = ("task=shapes_vqa", "task.limit=600", "part=vit,llm", "quant.bits=2", "backend=dummy")
OF = 200  # images of so many questions


class Judge:
    """In the place of the process that looks at cells. says: the answer to a request. asked: requests so far."""

    def __init__(self, says: Callable[[LookRequest], LookAnswer]) -> None:
        self.says, self.asked = says, list[LookRequest]()

    def warm(self, task: object) -> None:
        self.warmed = task

    def ask(self, request: LookRequest) -> int:
        self.asked.append(request)
        return len(self.asked)

    def answer(self, number: int) -> LookAnswer:
        return self.says(self.asked[number - 1])

    def close(self) -> None:
        pass


class Here(Judge):
    """It judges as the process does. looked: the looks of each request."""

    def __init__(self, output_dir: Path) -> None:
        self.looks = looking.Looks(output_dir)
        super().__init__(partial(looking.answer, self.looks))

    @property
    def looked(self) -> list[list[int]]:
        return [request["looks"] for request in self.asked]


class Asked(Dummy):
    """The dummy back end. asked: the images of each call. at: what happens before the call of these images."""

    def __init__(self) -> None:
        super().__init__({})
        self.asked, self.at = list[str](), dict[str, BaseException]()

    def __call__(self, job: Any, batch_size: int | None = None) -> Answered:
        places = job["task"].get("places", "all")
        if places in self.at:
            raise self.at[places]
        self.asked.append(places)
        return super().__call__(job, batch_size)


class Work:
    """A worker's way with its cells. stop: None where all images are asked for."""

    def __init__(self, folder: Path, cells: dict[str, Any], stop: str | None = "known", margin: float = 0.05) -> None:
        self.folder, self.cells, self.backend = folder, cells, Asked()
        images = {cells[name]["key"]: OF for name in ("same", "other")}
        request: Any = {"stop": stop, "margin": margin, "images": images}
        self.settings: Any = {"stop": request} if stop else {}
        self.ledger, self.said = Ledger(folder), list[str]()
        self.rounds = ByRounds(
            folder, self.settings, self.ledger, self.said.append, lambda key, text: self.said.append(text)
        )

    def __call__(self, name: str, **told: Any) -> Any:
        """The result line of a cell, None where it has none."""
        job, pack = self.cells[name], {"sweep": "s", "run": "r", "index": 0, "output_dir": str(self.folder)}
        run = partial(self.rounds, ask=self.backend) if self.rounds.applies(job) else self.backend
        with closing(Journal(self.folder)) as journal:
            if run_cell(job, run, journal, pack, told.get("stop") or Stop(), self.ledger) is not None:  # type: ignore[arg-type]
                self.rounds.committed(job)
        attempts = Ledger(self.folder).refresh().attempts.get(job["key"])
        return attempts.result if attempts else None

    @property
    def kept(self) -> list[str]:
        """The cells of which rounds are kept."""
        return [p.stem for p in self.folder.joinpath(*prefixes.FOLDER).glob("*.json")]


def predictions(work: Work, result: Any) -> Any:
    return read_predictions(work.folder, stem(result["key"], result["predictions"]))
