"""The figures of a report whose cells have further steps: all kinds beside each other, importance of blocks, recovery,
and sums of single drops."""

from __future__ import annotations

import pandas as pd

from blip2sweep.analysis.importance import importance
from blip2sweep.analysis.kinds import every_kind
from blip2sweep.analysis.recipes import part_names
from blip2sweep.analysis.recovery import recovery
from blip2sweep.analysis.together import together
from blip2sweep.metrics import METRICS
from blip2sweep.models.part import VISION
from blip2sweep.reporting.figure import Figure, label, roles_of
from blip2sweep.reporting.influence import influence_of
from blip2sweep.reporting.metric_text import metric_text
from blip2sweep.reporting.source import Source

NAMES = ("kinds", "importance", "recovery", "together")
AGAINST = (
    "Against the baseline: in % of the uncompressed, untrained model. Against the control: in % of the uncompressed model "
    "with the same recovery, since training on the task alone may beat the baseline."
)


def step_figures(source: Source) -> list[Figure]:
    """The figures of further steps; none where no cell has one."""
    if not (source.cells["further"] != "").any():
        return []
    blocks = _importance(source)
    return [_kinds(source, blocks.data), blocks, _recovery(source), _together(source)]


def _kinds(source: Source, blocks: pd.DataFrame) -> Figure:
    """All cells but those of single blocks, which the figure of these has."""
    data = every_kind(source.cells, source.metric, source.draws)
    single = data["key"].isin(blocks["key"].dropna()) if len(blocks) else pd.Series(False, index=data.index)
    left = f" The {int(single.sum())} cells of single blocks are in the next figure." if single.any() else ""
    data = data[~single].reset_index(drop=True)
    caption = (
        f"What every cell keeps of {label(source)}, a line a recipe, before and after its recovery. Filled, with paired 95 % "
        f"intervals over images: against the baseline. Hollow: against the control. {AGAINST}{left}"
    )
    return Figure("kinds", "All kinds of compression", caption, data, "part=all quant.bits=none,4")


def _importance(source: Source) -> Figure:
    shape, influence = source.anatomy, influence_of(source)
    data = importance(source.cells, source.metric, source.draws, shape, influence) if shape else pd.DataFrame()
    worse = metric_text(source.metric).worse
    caption = (
        f"Three measures of how much a block matters, side by side: the {worse} of {label(source)} where it alone is left out, "
        "where it alone is quantized, and below its influence, 1 − cosine of its input and output on calibration samples, "
        "which costs one forward pass. Shaded: simultaneous 95 % band over the blocks of a measure. No order of blocks is "
        "right for every model: compare before you trust one."
    )
    each = ",".join(f"{p}:each" for p in part_names(source.cells))
    return Figure("importance", "Importance of blocks", caption, data, f"part=none drop_blocks={each}")


def _recovery(source: Source) -> Figure:
    data = recovery(source.cells, source.metric, source.draws)
    caption = (
        f"{label(source)} of a cell before its recovery (step 0) and after, against the steps that were trained or the bytes of "
        f"the whole model. Dashed: the controls. Bars: paired 95 % intervals against the baseline. {_chosen(data)}"
        f"Further seeds are points beside the line. {AGAINST}"
    )
    trained = "+".join(p for p, role in roles_of(source).items() if role != VISION)
    wanted = f"part=none drop_blocks={_last_blocks(source)} recover=none,lora recover.steps=50,150,500"
    wanted += f" recover.target={trained}:all:all" if trained else ""
    return Figure("recovery", "Recovery by training", caption, data, wanted)


def _chosen(data: pd.DataFrame) -> str:
    """That held-out images chose earlier steps, where they did."""
    if data.empty or data["chosen"].isna().all():
        return ""
    early = data[data["chosen"].astype(float) < data["steps"].astype(float)]
    told = f"in {len(early)} of {int(data['chosen'].notna().sum())} cells an earlier one than the last"
    return (
        f"Held-out training images choose the step, {told}. "
        if len(early)
        else "Held-out training images choose the step. "
    )


def _last_blocks(source: Source) -> str:
    """The last two blocks of the first part that is no vision part and has three; `connector:2@last` where none is known."""
    parts = source.anatomy.parts.values() if source.anatomy else ()
    fitting = [p.name for p in parts if p.role != VISION and all(s.n > 2 for s in p.stacks)]
    return f"{fitting[0] if fitting else 'connector'}:2@last"


def _together(source: Source) -> Figure:
    shape = source.anatomy
    data = together(source.cells, source.metric, source.draws, shape) if shape else pd.DataFrame()
    worse, gains = metric_text(source.metric).worse, "more" if METRICS[source.metric].higher_is_better else "higher"
    caption = (
        f"The {worse} of {label(source)} of blocks or steps together, against the sum of what each costs alone. Above the line "
        f"they cost {gains} together than the sum says. Bars: 95 % intervals of the difference from the sum, from shared "
        "resamples. Where a point is off the line, a set of blocks cannot be chosen from single drops: it has to be run."
    )
    name = _last_blocks(source).partition(":")[0]
    wanted = f"part=none drop_blocks={name}:each,{name}:2@first,{name}:2@middle,{name}:2@last"
    return Figure("together", "Together and alone", caption, data, wanted)
