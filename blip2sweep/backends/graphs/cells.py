"""Cells as models that run: made by torch, written by a format, compiled by a library. The last ones are kept."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from blip2sweep.backends.graphs.files import content_key, packed, store_of, unpack
from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.backends.torch.provenance import computed_by
from blip2sweep.canonical import digest
from blip2sweep.exporting import Format
from blip2sweep.exporting.traced import graphs_of
from blip2sweep.files import read_json, write_json
from blip2sweep.models.graphs import Session
from blip2sweep.models.load import Loaded
from blip2sweep.wire.lines import Cost
from blip2sweep.wire.pack import CellJob, JsonObject, Settings

KEPT = 2  # a cell and its baseline
SIZES = "sizes.json"
Compile = Callable[[Path, Sequence[str]], Mapping[str, Session]]


@dataclass(frozen=True, eq=False)
class Ready:
    """A cell that can be run. loaded: the model with graphs in place of its stages. sizes: bytes on disk, as columns."""

    key: str
    loaded: Loaded
    sizes: Cost


class Cells:
    """The cells of a worker. libraries: {name: version} of what writes and runs the files."""

    def __init__(
        self, settings: Settings, torch: TorchBackend, form: Format, compiled: Compile, libraries: JsonObject
    ) -> None:
        self.torch, self.form, self.compiled = torch, form, compiled
        self.made_by: JsonObject = {"libraries": libraries, "computed_by": computed_by()}
        self.store, self.kept = store_of(settings), list[Ready]()

    def __call__(self, job: CellJob) -> Ready:
        """The model of a job, until KEPT others came."""
        key = content_key(job, self.made_by)
        found = next((x for x in self.kept if x.key == key), None) or self._made(key, job)
        self.kept = [found, *(x for x in self.kept if x.key != key)][:KEPT]
        return found

    def baseline(self, job: CellJob) -> Ready:
        """The uncompressed model of a job."""
        return self({**job, "key": job["baseline"], "recipe": [], "recipe_hash": digest([]), "calibration": None})

    def _made(self, key: str, job: CellJob) -> Ready:
        with tempfile.TemporaryDirectory(prefix="blip2sweep-") as name:
            folder = Path(name)
            self._files(key, job, folder)
            loaded = self.torch.plain(job)
            graphs = graphs_of(loaded, job["model"])
            stages = graphs.stages(self.compiled(folder, [g.name for g in graphs.graphs]))
            return Ready(
                key, replace(loaded, images=stages.images, language=stages.language), read_json(folder / SIZES)
            )

    def _files(self, key: str, job: CellJob, folder: Path) -> None:
        """Put the files of a cell into a folder: those that were kept, or new ones."""
        known = self.store.get(key) if self.store else None
        if known is not None:
            unpack(known, folder)
            return
        written = self.form.write(self.torch.made(job), folder, None)
        write_json(folder / SIZES, {"payload_bytes": written.payload, "export_bytes": written.payload + written.around})
        if self.store:
            self.store.put(key, packed(folder))
