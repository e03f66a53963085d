"""Every number of docs/blip2-coco.md, from the study's own files: what the page says is what this prints.

    python scripts/study_findings.py FOLDER                 # the counts, findings and recommendations, half a minute
    python scripts/study_findings.py FOLDER --prediction    # also the table of prediction errors, 20 draws of each row

tests/analysis/test_findings.py looks each of them up in the page.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from blip2sweep.analysis import predict
from blip2sweep.analysis.dropoff import dropoff, lowest_safe
from blip2sweep.analysis.layer_groups import layer_groups, noise
from blip2sweep.analysis.recommend import recommend
from blip2sweep.analysis.shapley import additivity, shapley
from blip2sweep.analysis.suggest import design
from blip2sweep.importing.study import MODEL, Counts, read_study
from blip2sweep.models.shipped import model_anatomy
from blip2sweep.reporting.source import Source, load_source

Array = NDArray[np.float64]
VIT, QFORMER, LLM = "vit:all:all", "qformer:all:attention", "llm:all:mlp"
DRAWS, CELLS = 20, 60


def number(value: float, digits: int = 3) -> str:
    """`.268`, `−.002`, `1.258`."""
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1).replace("-", "−") if abs(value) < 1 else text.replace("-", "−")


def bounded(value: float, low: float, high: float, digits: int = 3) -> str:
    """`.268 [.230, .306]`; without outputs there is no interval."""
    return number(value, digits) + ("" if low != low else f" [{number(low)}, {number(high)}]")


class Study:
    """The imported cells, looked up by what was done: `{target: bits}`."""

    def __init__(self, source: Source) -> None:
        assert source.draws is not None
        self.cells, self.draws = source.cells, source.draws
        self._rows: dict[str, dict[Any, Any]] = {r["recipe"]: r for r in self.cells.to_dict("records")}

    def row(self, done: dict[str, int]) -> dict[Any, Any]:
        text = "; ".join(f"{target}=minmax{bits}/tensor" for target, bits in done.items())
        return self._rows[text]

    def drop(self, done: dict[str, int], digits: int = 3) -> str:
        row = self.row(done)
        return bounded(row["drop_cider"], row["drop_cider_low"], row["drop_cider_high"], digits)

    def difference(self, one: dict[str, int], other: dict[str, int]) -> str:
        """Drop of one cell minus that of another, paired."""
        a, b = self.row(one), self.row(other)
        return bounded(*self.draws.paired(a["key"], b["key"]))


def counted(counts: Counts) -> dict[str, str]:
    """What was run."""
    return {name: str(value) for name, value in counts._asdict().items() if name != "empty_outputs"}


def sizes(folder: Path) -> dict[str, str]:
    """What 4 bits in all parts leave of a 32-bit model: as published, and of what was really quantized."""
    configs = read_study(folder).configs
    full = max(c.size for c in configs)
    one = min((c for c in configs if {e["num_bits"] for e in c.named} == {4}), key=lambda c: c.right_size)
    return {"published": number(one.size / full), "really": number(one.right_size / full)}


def shares(study: Study) -> dict[str, str]:
    """How much of the model the study could change, and how many models come with captions."""
    parts, intervals = model_anatomy(MODEL).parts, study.cells["drop_cider_low"].notna().sum()
    weights = {p: sum(x.weights for x in parts[p].linears) for p in parts}
    reached = {
        p: sum(x.weights for x in parts[p].linears if x.kind == k)
        for p, k in (("qformer", "attention"), ("llm", "mlp"))
    }
    whole = study.row({VIT: 4})["model_bytes"] * 8 / study.row({VIT: 4})["bits_per_weight"]
    return {"with intervals": f"{intervals} of {len(study.cells)} models",
            "qformer": f"{100 * reached['qformer'] / weights['qformer']:.0f} % of its block weights",
            "qformer of all": f"{100 * reached['qformer'] / whole:.1f} % of the whole model",
            "llm": f"{100 * reached['llm'] / weights['llm']:.0f} % of its block weights"}  # fmt: skip


def findings(study: Study) -> dict[str, str]:
    """Findings 1 to 6, in their order."""
    found = {f"1 {t} 8": study.drop({t: 8}, 4) for t in (VIT, QFORMER, LLM)}
    found["1 all 8"] = study.drop(dict.fromkeys((VIT, QFORMER, LLM), 8), 4)
    vit = study.row({VIT: 8})
    found["1 vit 8 up to"] = f"{100 * vit['drop_cider_high'] / vit['baseline_cider']:.1f} %"
    found["1 safe"] = _safe(study)
    for bits in (8, 6, 5):
        kept = study.row(dict.fromkeys((VIT, QFORMER, LLM), bits))
        found[f"2 all {bits}"] = f"{bits} bits {100 * kept['cider'] / kept['baseline_cider']:.0f} %"
    found |= {f"2 {t} {b}": study.drop({t: b}) for t in (VIT, LLM) for b in (6, 5)}
    found |= {"3 qformer 4": study.drop({QFORMER: 4}, 4), "3 qformer 3": study.drop({QFORMER: 3})}
    found |= {f"4 llm {third} 5": study.drop({f"llm:{third}:mlp": 5}) for third in ("first", "middle", "last")}
    found["4 llm first spared"] = study.difference({LLM: 5}, {"llm:middle+last:mlp": 5})
    found |= {
        f"4 vit {third} {b}": study.drop({f"vit:{third}:all": b}) for third in ("first", "middle") for b in (6, 5)
    }
    return found | _additive(study) | _near(study)


def _safe(study: Study) -> str:
    """The lowest safe width of the lines that the page names, by the fixed sequence."""
    named = {
        "Q-Former": QFORMER,
        "LLM": LLM,
        "ViT attention": "vit:all:attention",
        "ViT MLPs": "vit:all:mlp",
        "whole ViT": VIT,
    }
    safe = lowest_safe(dropoff(study.cells, "cider", study.draws)).set_index("line")["lowest_safe"]
    return ", ".join(f"{name} {'none' if pd.isna(safe[line]) else f'{safe[line]:g}'}" for name, line in named.items())


def _additive(study: Study) -> dict[str, str]:
    """Joint drops against sums of single ones."""
    rows = additivity(study.cells, "cider", study.draws)
    pair = rows[rows["line"] == "vit:all:mlp; llm:all:mlp"].set_index("width")
    found = {f"5 {name} 6": number(float(pair[name][6])) for name in ("joint", "sum")}
    found |= {f"5 excess {b}": bounded(*pair.loc[b, ["excess", "low", "high"]]) for b in (6, 5)}
    telling = rows[rows["low"].notna() & rows["joint"].between(0.05, 1.2)]
    differing = (telling["low"] > 0) | (telling["high"] < 0)
    return found | {"5 differing": f"{differing.sum()} of {len(telling)}"}


def _near(study: Study) -> dict[str, str]:
    cells = study.cells[(study.cells["part"] != "none") & study.cells["drop_cider_low"].notna()]
    near = cells[cells["drop_cider"].abs() < 0.05]
    differing = (near["drop_cider_low"] > 0) | (near["drop_cider_high"] < 0)
    half = (near["drop_cider_high"] - near["drop_cider_low"]) / 2
    reach = {"6 median reach": number(half.median()), "6 largest reach": number(half.max())}
    return {"6 differing": f"{differing.sum()} of {len(near)}", **reach}


def conclusions(study: Study) -> dict[str, str]:
    """The table of published conclusions."""
    found: dict[str, str] = {}
    for bits in (6, 5):
        pair = {"vit:all:mlp": bits, "llm:all:mlp": bits}
        values = shapley(study.cells, "cider", study.draws, study.row(pair)["key"]).set_index("term")
        found |= {f"mlp {p} {bits}": bounded(*values.loc[p, ["value", "low", "high"]]) for p in ("vit", "llm")}
        found[f"mlp difference {bits}"] = study.difference({"vit:all:mlp": bits}, {"llm:all:mlp": bits})
    whole = shapley(study.cells, "cider", study.draws, study.row({VIT: 6, QFORMER: 6, LLM: 6})["key"]).set_index("term")
    found |= {f"as run {p} 6": number(float(whole["value"][p])) for p in ("vit", "llm")}
    found["llm 6"] = study.drop({LLM: 6})
    found["llm middle and last 5"] = study.drop({"llm:middle+last:mlp": 5})
    found |= {f"vit {kind} 5": study.drop({f"vit:all:{kind}": 5}) for kind in ("attention", "mlp")}
    size = study.row({VIT: 4, QFORMER: 4, LLM: 4})
    return found | {"bits per weight, 4 bits": f"{size['bits_per_weight']:.2f} bits per weight"}


def recommended(study: Study) -> dict[str, str]:
    """What `recommend` says for a drop of 2 % and for 4.5 GB."""
    anatomy = model_anatomy(MODEL)
    found: dict[str, str] = {}
    for name, most, drop in (("2 %", None, 0.02), ("4.5 GB", 4_500_000_000, None)):
        choice = recommend(study.cells, "cider", study.draws, anatomy, most, drop)
        found[f"{name} recipe"] = "; ".join(f"{e['target']}={e['bits']}" for e in choice.entries)
        found[f"{name} size"] = f"{choice.model_bytes / 1e9:.2f} GB or {choice.bits_per_weight:.1f} bits per weight"
        found[f"{name} drop"] = number(choice.drop)
        if choice.key is None:
            ends = (number(max(0.0, choice.baseline - end)) for end in (choice.high, choice.low))
            found[f"{name} interval"] = "90 % interval " + " to ".join(ends)
        if choice.instead is not None:
            found[f"{name} instead"] = (
                f"{choice.instead.model_bytes / 1e9:.2f} GB" if choice.key else number(choice.instead.drop)
            )
    return found


# ---- prediction


def predicted(study: Study) -> dict[str, str]:
    """Mean absolute errors overall and among .1 < CIDEr < 1.2, each row over as many draws as the page says."""
    pieces = layer_groups(study.cells, model_anatomy(MODEL))
    widths = np.where(pieces.widths == 16, 0, pieces.widths)
    first = np.sort(np.unique(widths, axis=0, return_index=True)[1])
    widths, metric = widths[first], study.cells["cider"].to_numpy(float)[first]
    power, base = noise(widths), float(study.draws.value(study.draws.baseline))
    names, groups, everything = np.array(pieces.parts), pieces.families, np.arange(len(metric))
    rows: dict[str, list[tuple[float, float]]] = {n: [] for n in ("bits", "bits × parts", "model", "suggest")}
    for draw in range(DRAWS):
        train = np.random.default_rng(draw).choice(len(metric), CELLS, replace=False)
        guesses = {"bits": predict.bits_alone(widths, train, metric),
                   "bits × parts": predict.bits_by_parts(widths, pieces.parts, train, metric),
                   "model": predict.fit(power[train], metric[train], base, groups)(power)}  # fmt: skip
        for name, guess in guesses.items():
            rows[name].append(_errors(guess, metric, np.setdiff1d(everything, train)))
        chosen = np.array(design(power, groups, base, lambda i: float(metric[i]), CELLS, draw))
        guess = predict.fit(power[chosen], metric[chosen], base, groups)(power)
        rows["suggest"].append(_errors(guess, metric, np.setdiff1d(everything, chosen)))
    found = {name: _pair(np.mean(errors, axis=0)) for name, errors in rows.items()}
    single = np.array([len(set(names[w > 0])) <= 1 for w in widths])
    train, test = np.flatnonzero(single), np.flatnonzero(~single)
    found["single and joint models"] = f"{len(train)} and {len(test)}"
    found["single to joint"] = _pair(
        _errors(predict.fit(power[train], metric[train], base, groups)(power), metric, test)
    )
    return found | {"single to joint, bits": _pair(_errors(predict.bits_alone(widths, train, metric), metric, test))}


def _errors(guess: Array, metric: Array, test: NDArray[np.intp]) -> tuple[float, float]:
    off, telling = np.abs(guess - metric)[test], ((metric > 0.1) & (metric < 1.2))[test]
    return float(off.mean()), float(off[telling].mean())


def _pair(errors: Any) -> str:
    return " and ".join(number(e) for e in errors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a copy of the study's data")
    parser.add_argument("--prediction", action="store_true", help="also the prediction errors; some minutes")
    chosen = parser.parse_args()
    from blip2sweep.importing.blip2_coco import SWEEP, import_blip2_coco

    with tempfile.TemporaryDirectory() as name:
        counts = import_blip2_coco(chosen.folder, Path(name))
        study = Study(load_source(Path(name), SWEEP))
    told = {"What was run": counted(counts) | shares(study) | sizes(chosen.folder), "Findings": findings(study), "Conclusions": conclusions(study),
            "Recommended": recommended(study)} | ({"Prediction": predicted(study)} if chosen.prediction else {})  # fmt: skip
    for title, values in told.items():
        print(f"{title}\n" + "\n".join(f"  {k}: {v}" for k, v in values.items()))


if __name__ == "__main__":
    main()
