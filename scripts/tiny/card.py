"""The model card: measures what it states, then writes it. Every number comes from a run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch

from .evaluate import Predictions, drops, summary
from .quantize import STRATEGIES, linears, quantize
from .runner import Runner

BITS = (8, 6, 5, 4, 3, 2)
THIRDS = ("first", "middle", "last")
SCORE_NAMES = {
    "cider": "CIDEr",
    "vqa": "VQA accuracy",
    "yes/no": "yes/no",
    "relational": "yes/no, relational",
    "number": "number",
    "other": "other",
}


def _cells(runner: Runner) -> Iterator[tuple[tuple[str, ...], int, str, str]]:
    """Parts, bits, strategy and third of every cell of the card; thirds of the parts that have any."""
    for parts in [*((part,) for part in runner.parts), runner.parts]:
        for strategy in STRATEGIES:
            for bits in BITS:
                yield parts, bits, strategy, "all"
    for part in runner.parts:
        if len(runner.blocks(part)) >= len(THIRDS):
            yield from (((part,), 4, "tensor", third) for third in THIRDS)


def drop_off(runner: Runner, progress: Callable[[str], None] = print) -> list[dict]:
    """One row a cell: quantize, run, score against the model as it stands, restore."""
    split = runner.split
    before = split.score(runner.run(runner.parts[-1:]))
    weights = copy.deepcopy(runner.model.state_dict())
    rows = []
    for parts, bits, strategy, third in _cells(runner):
        layers = [linear for part in parts for linear in linears(runner.blocks(part), third)]
        quantize(layers, bits, strategy)
        result = drops(split, before, split.score(runner.run(parts)))
        runner.model.load_state_dict(weights)
        name = parts[0] if len(parts) == 1 else "all"
        rows.append({"part": name, "bits": bits, "strategy": strategy, "third": third, **result})
        loss = f"CIDEr −{result['cider'][0]:.1f} %, VQA −{result['vqa'][0]:.1f} %"
        progress(f"{name} {third} {strategy} {bits} bit: {loss}")
    return rows


def _largest_change(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / a.abs().max())


def _same(a: Predictions, b: Predictions) -> list[int]:
    """How many captions and answers are identical."""
    return [sum(x == y for x, y in zip(*pair, strict=True)) for pair in zip(a, b, strict=True)]


def proof(trained: Runner, rescaled: Runner) -> dict[str, list]:
    """How far rescaling changed the function, in fp32: identical outputs, relative change of features and logits."""
    changes = [_largest_change(a, b) for a, b in zip(trained.probe(), rescaled.probe(), strict=True)]
    return {"same": _same(trained.run(trained.parts), rescaled.run(rescaled.parts)), "changes": changes}


def scores(runners: Mapping[str, Runner]) -> dict[str, dict[str, list[float]]]:
    """`summary` of every split, of the model as shipped (bf16 values run in fp32)."""
    found = {name: runner.split.score(runner.run(runner.parts[-1:])) for name, runner in runners.items()}
    return {name: summary(runners[name].split, score) for name, score in found.items()}


# --- writing ----------------------------------------------------------------------------------------------------------


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def score_table(scores: dict[str, dict[str, list[float]]]) -> str:
    """One row a score, one column a split: mean ± standard error."""
    digits = {"cider": 3}
    rows = []
    for key, name in SCORE_NAMES.items():
        values = [by_split[key] for by_split in scores.values()]
        text = [f"{mean:.{digits.get(key, 1)}f} ± {se:.{digits.get(key, 1)}f} ({n})" for mean, se, n in values]
        rows.append([name, *text])
    return _table(["", *scores], rows)


def _interval(value: list[float]) -> str:
    drop, low, high = (f"{x:.0f}".replace("-0", "0") for x in value)
    return f"{drop} [{low}, {high}]"


def drop_table(cells: list[dict], metric: str) -> str:
    """Part and strategy down, bits across: loss in per cent with its interval."""
    whole = [cell for cell in cells if cell["third"] == "all"]
    rows = {(cell["part"], cell["strategy"]): [f"{cell['part']}, {cell['strategy']}"] for cell in whole}
    for cell in whole:
        rows[cell["part"], cell["strategy"]].append(_interval(cell[metric]))
    return _table(["", *dict.fromkeys(f"{cell['bits']:.0f}" for cell in whole)], list(rows.values()))


def third_table(cells: list[dict]) -> str:
    """Part down, third across, at 4-bit per-tensor: CIDEr loss in per cent with its interval."""
    rows = []
    thirds = [cell for cell in cells if cell["third"] != "all"]
    for part in dict.fromkeys(cell["part"] for cell in thirds):
        by_third = {cell["third"]: _interval(cell["cider"]) for cell in thirds if cell["part"] == part}
        rows.append([part, *(by_third[third] for third in THIRDS)])
    return _table(["", *THIRDS], rows)


def write_card(path: Path, template: Path, facts: dict[str, object], results: dict) -> None:
    """Fill `template`; `facts` are its plain fields, `results` what was measured."""
    same, changes = results["proof"]["same"], results["proof"]["changes"]
    n = results["proof"]["n"]
    path.write_text(
        template.read_text().format(
            **facts,
            scores=score_table(results["scores"]),
            cider_drops=drop_table(results["cells"], "cider"),
            vqa_drops=drop_table(results["cells"], "vqa"),
            thirds=third_table(results["cells"]),
            same_captions=f"{same[0]} of {n[0]}",
            same_answers=f"{same[1]} of {n[1]}",
            feature_change=f"{changes[0]:.1e}",
            logit_change=f"{changes[1]:.1e}",
        )
    )
