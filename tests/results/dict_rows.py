"""The rows of a table as mappings, one by one: the plain second implementation of what `table.py` makes by column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blip2sweep.metrics import METRICS
from blip2sweep.recipe.old_sizes import OldSizes
from blip2sweep.recipe.part_bits import Anatomies, RoleColumns
from blip2sweep.results import drop_columns, latency
from blip2sweep.results.ledger import Attempts, Ledger
from blip2sweep.results.planned import planned_models
from blip2sweep.results.score_folders import listed_variants
from blip2sweep.results.sources import Sources, baseline_of
from blip2sweep.results.table import is_stale

RUN = ("layers_changed", "threads", "cpu", "cpu_capability", "versions", "attention", "image_processor", "code", "predictions", "host",
       "job")  # fmt: skip


def plain(value: Any) -> Any:
    """A line as mappings and lists alone."""
    return {k: plain(v) for k, v in value.items()} if isinstance(value, Mapping) else value


class DictRows:
    """Makes the rows of a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.sources = ledger, Sources(ledger, listed_variants(ledger.output_dir))
        anatomy_of = Anatomies(lambda: planned_models(ledger.output_dir))
        self.roles, self.sized = RoleColumns(anatomy_of), OldSizes(anatomy_of)

    def all(self) -> list[dict[str, Any]]:
        """In the order of the table."""
        cells = [*self.ledger.attempts.items()]
        cells.sort(key=lambda item: (item[1].result or item[1].last_start or {"time": 0})["time"])
        return [self.sized(row) for key, attempts in cells if (row := self._row(key, attempts))]

    def _row(self, key: str, attempts: Attempts) -> dict[str, Any] | None:
        if attempts.result is None:
            return self._failed(key, attempts)
        result = plain(attempts.result)
        columns = result["columns"]
        found = {
            "key": key,
            "status": "done",
            **self.roles(columns if "imported" in result else _with_back_end(columns)),
        }
        found |= {"attempts": attempts.started, "stale": is_stale(attempts.result), **self._published(result)}
        measured = self._measured(attempts)
        found |= drop_columns.columns(measured) if measured else {}
        told = result.get("stopped")
        found |= (
            {"images": told["images"], "images_of": told["of"], "stopped": told["reason"]} if told else {"stopped": ""}
        )
        twin = self.ledger.attempts.get(columns.get("beside") or "")
        beside = self._measured(twin) if twin and twin.result else None
        found |= {f"torch_{m}": v[0] for m, v in beside["metrics"].items()} if beside else {}
        found |= {**result.get("cost", {}), **{k: result.get(k) for k in RUN}, "finished": result["time"]}
        return found | latency.columns(attempts)

    def _measured(self, attempts: Attempts) -> Any:
        assert attempts.result is not None
        found = plain(attempts.measured.get(self.sources(attempts.result), {}))
        return found if found and (not attempts.result.get("stopped") or "of" in found) else None

    def _published(self, result: Any) -> dict[str, Any]:
        if "published" not in result:
            return {}
        baseline = baseline_of(result, self.ledger)
        base = baseline.get("published", {}) if baseline else {}
        own = result["published"]
        found = {
            "imported": result["imported"],
            "configs": result.get("configs"),
            "noop_configs": result.get("noop_configs"),
            **own,
        }
        for name in (n for n in own if n in base and n in METRICS):
            found |= {f"baseline_{name}": base[name], f"drop_{name}": METRICS[name].drop(base[name], own[name])}
        return found

    def _failed(self, key: str, attempts: Attempts) -> dict[str, Any] | None:
        line = plain(attempts.last_failure or {})
        if "columns" not in line:
            return None
        reason = {"failure": line["kind"], "error": line["error"], "host": line["host"], "job": line.get("job")}
        columns = self.roles(_with_back_end(line["columns"]))
        return {"key": key, "status": "failed", **columns, "attempts": attempts.started, "stale": False, **reason}


def _with_back_end(columns: Mapping[str, Any]) -> dict[str, Any]:
    return {**columns, "backend": columns.get("backend", "torch")}
