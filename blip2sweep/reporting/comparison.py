"""Models beside each other by role: drops in % of each model's own baseline, and what is not compared, with the reason."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from blip2sweep.analysis.cell_row import Row, number
from blip2sweep.analysis.models import ALL, COLUMNS, UNKNOWN, by_role, grounds, joined, largest_group, role_rank
from blip2sweep.models.part import ROLES
from blip2sweep.reporting.back_ends import origins
from blip2sweep.reporting.figure import Figure, roles_of
from blip2sweep.reporting.metric_text import MetricText, metric_text
from blip2sweep.reporting.price_table import Sizes
from blip2sweep.reporting.source import Source
from blip2sweep.reporting.sources import BACK_END, Sources, listed
from blip2sweep.reporting.stopped_text import with_stopped

MOST_ROWS = 400  # of the table that is there at once; the data below the figure has all
ORDER = ("role", "setting", "width", "model")
PROMPT = "prompt"  # the generation setting that each model has of its own


@dataclass(frozen=True)
class Comparison:
    """figure: a row for each compared cell, see `by_role`; its table is HTML. metric: of the compared models, or of the
    first model. notes: what a reader must know, as plain text."""

    figure: Figure
    metric: MetricText
    notes: list[str]


def compare(sources: Sources) -> Comparison:
    """The comparison of the models that were scored on the same samples."""
    kind = sources.kind
    kinds = {s.name: grounds(s.cells, s.metric) for s in sources.models}
    chosen = largest_group(kinds)
    group = [s for s in sources.models if s.name in chosen]
    metric = metric_text(group[0].metric)
    rows = (
        [by_role(s.cells, s.metric, s.draws, roles_of(s)).assign(model=s.name) for s in group] if len(group) > 1 else []
    )
    rows = [own for own in rows if len(own)]
    data = (
        _ordered(pd.concat(rows, ignore_index=True), [s.name for s in group]) if rows else pd.DataFrame(columns=COLUMNS)
    )
    several = _of_several(data)
    notes = [*_grounds_notes(sources, group, kinds), *(_missing_roles(data, group) if len(group) > 1 else ())]
    caption = (
        f"{metric.worse.capitalize()} of {metric.label} in % of each {kind}'s own baseline against the width of the layers touched; lower on "
        f"the page is worse. A panel a role, a line a {kind}. Bars: 95 % intervals over images, paired with the {kind}'s own baseline. No two "
        f"{kind}s are tested against each other."
    )
    figure = Figure(
        "models",
        f"{kind.capitalize()}s by role",
        caption,
        data,
        "",
        table=_table(data, metric, kind) if len(data) else "",
    )
    figure = with_stopped(figure, pd.concat([s.cells for s in group]))
    if len(group) > 1 and not several:
        notes.append(f"no role was compressed at one width in two {kind}s with the same setting, so no panel is drawn")
    return Comparison(figure, metric, notes)


def drawn(data: pd.DataFrame) -> pd.DataFrame:
    """The rows of panels that have two models, and a drop."""
    if data.empty:
        return data
    several = _of_several(data)
    keep = [place in several for place in zip(data["role"], data["setting"], strict=True)]
    return data[keep & data["drop"].notna().to_numpy()]


def _of_several(data: pd.DataFrame) -> set[tuple[str, str]]:
    """(role, setting) of the panels that have several models."""
    if data.empty:
        return set()
    models = data.dropna(subset=["drop"]).groupby(["role", "setting"])["model"].nunique()
    return {(str(role), str(setting)) for role, setting in models[models > 1].index}


def _ordered(data: pd.DataFrame, models: list[str]) -> pd.DataFrame:
    """By role, setting, width from wide to narrow, and model."""
    ranks = sorted(data["role"].unique(), key=role_rank)
    by = (data["role"].map(ranks.index), data["setting"], -data["width"], data["model"].map(models.index))
    keys = pd.DataFrame(dict(zip(ORDER, by, strict=True)))
    return data.loc[keys.sort_values([*ORDER], kind="stable").index].reset_index(drop=True)


# ---- what is not compared


def _grounds_notes(sources: Sources, group: list[Source], kinds: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """Which models are compared on which samples, which not and why, and what differs in how they were asked."""
    names = [s.name for s in group]
    if len(group) > 1:
        same = f"{listed(names)} were scored on the same {_on(group[0])}"
        known = kinds[names[0]][2] != UNKNOWN
        yield same if known else f"whether {same} is not known: their rows do not say"
        yield from _asked_differently(group)
    for source in (s for s in sources.models if s.name not in names):
        how = _difference(kinds[source.name], kinds[names[0]])
        yield f"{source.name} is not compared with {listed(names)}: {how}; its own analysis is below"
    for source in (s for s in sources.models if sources.kind == BACK_END and any(origins(s.cells))):
        yield f"{source.name}: rows that were imported are compared with the baseline of the cell that they are like"
    for name, why in sources.left_out.items():
        yield f"{name} is left out: {why}"


def _on(source: Source) -> str:
    known = source.cells.iloc[0].get("samples")
    return f"{int(known)} samples of {_task(source)}" if pd.notna(known) and known else f"samples of {_task(source)}"


def _task(source: Source) -> str:
    return str(source.cells["task"].iloc[0])


def _difference(own: tuple[str, ...], other: tuple[str, ...]) -> str:
    """In words what differs between two `grounds`."""
    if own[0] != other[0]:
        return f"its metric is {own[0]} and theirs {other[0]}"
    if own[1] != other[1]:
        return f"it was scored on {own[1]} samples and they on {other[1]}"
    return "it was scored on other samples or pictures of the same number"


def _asked_differently(group: list[Source]) -> Iterator[str]:
    """What generation settings differ between models."""
    settings = {s.name: _settings(s.cells.iloc[0].get("generation")) for s in group}
    names = dict.fromkeys(name for own in settings.values() for name in own)
    for name in names:
        values = {model: own.get(name) for model, own in settings.items()}
        if len(set(map(str, values.values()))) == 1:
            continue
        if name == PROMPT:
            yield "each model was asked with its own prompt"
        else:
            yield f"generation settings differ: {name} {', '.join(f'{v} ({m})' for m, v in values.items())}"


def _settings(generation: object) -> dict[str, object]:
    try:
        found = json.loads(str(generation))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _missing_roles(data: pd.DataFrame, group: list[Source]) -> Iterator[str]:
    """Why a model has no line in a panel that other models have."""
    for source in group:
        roles = set(roles_of(source).values())
        if not roles:
            yield f"{source.name}: its parts are not known here, so it is in no panel"
            continue
        base = source.cells.loc[source.cells["part"] == "none", source.metric].iloc[0]
        if not base > 0:
            yield f"{source.name}: its baseline's {metric_text(source.metric).label} is {base:g}, so no drop is a share of it"
        section = source.section
        reasons = (section.get("not_addressable") if section else None) or {}
        yield from _missing_of(source.name, roles, reasons, data)


def _missing_of(model: str, roles: set[str], reasons: Mapping[str, str], data: pd.DataFrame) -> Iterator[str]:
    """roles: that the model has. reasons: {role: why it has none}."""
    own = set(data.loc[data["model"] == model, "role"])
    for role in (r for r in data["role"].unique() if r not in own):
        lacked = [w for w in role.partition(", ")[0].split(" + ") if w in ROLES and w not in roles]
        why = "; ".join(reasons.get(w) or f"it has no {w} part that can be compressed" for w in lacked)
        yield f"{role}: no line of {model} ({why or 'not run'})"
    if ALL in own and roles != set(ROLES):
        yield f"all of {model} is {joined(roles)}"


# ---- the table


def _table(data: pd.DataFrame, metric: MetricText, kind: str) -> str:
    """Model × role × bits as HTML."""
    sizes = Sizes(float(data["model_bytes"].max()) if data["model_bytes"].notna().any() else 0.0)
    several = data["setting"].nunique() > 1
    head = ["role", *(["method"] if several else []), "bits", kind, f"baseline {metric.label}", f"{metric.worse}, % of it",
            "95 % interval", "bits/weight", "saved"]  # fmt: skip
    body = "".join(_line(_cells(r, sizes, several)) for r in data.head(MOST_ROWS).to_dict("records"))
    heads = "".join(f'<th scope="col">{html.escape(h)}</th>' for h in head)
    more = (
        f"<p>The first {MOST_ROWS} of {len(data)} rows; all are in the data below.</p>" if len(data) > MOST_ROWS else ""
    )
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>{more}'


def _line(texts: list[str]) -> str:
    return f"<tr>{''.join(f'<td>{html.escape(t)}</td>' for t in texts)}</tr>"


def _cells(row: Row, sizes: Sizes, several: bool) -> list[str]:
    low, high, saved = (number(row, c) for c in ("drop_low", "drop_high", "saved_bytes"))
    bars = "" if math.isnan(low) else f"{_percent(low)}…{_percent(high)}{row['level']}"
    return [str(row["role"]), *([str(row["setting"])] if several else []), f"{row['width']:g}", str(row["model"]),
            f"{number(row, 'baseline'):.3f}", _percent(number(row, "drop")), bars,
            f"{number(row, 'bits_per_weight'):.2f}", "" if math.isnan(saved) else sizes(saved)]  # fmt: skip


def _percent(value: float) -> str:
    return "" if math.isnan(value) else f"{round(value, 1) + 0.0:.1f}".replace("-", "−")
