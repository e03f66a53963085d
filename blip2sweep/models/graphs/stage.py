"""An image stage that a session computes."""

from __future__ import annotations

from dataclasses import dataclass

from blip2sweep.models.graphs import Session
from blip2sweep.models.ragged import Rows


@dataclass(eq=False)
class GraphStage:
    """An `ImageStage` over dense rows (models/architecture.py): its graph has one input and one output of float32."""

    name: str
    session: Session
    input: str
    output: str

    def run(self, rows: Rows) -> Rows:
        return Rows(self.session(**{self.input: rows.values.float()})[self.output])
