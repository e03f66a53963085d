"""Methods compared on matched cells only: the same recipe but for the method, at the same size."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from blip2sweep.analysis.draws import Draws
from blip2sweep.analysis.paired import paired_interval
from blip2sweep.analysis.recipes import Entry, entries

REFERENCE = "rtn"
SAME_SIZE = 0.02  # bits per weight
PLACE = ("target", "bits", "strategy", "group_size", "input")
SIZES = ("bits_per_weight", "bits_per_weight_touched")


def matched(cells: pd.DataFrame, metric: str, draws: Draws | None, reference: str = REFERENCE) -> pd.DataFrame:
    """Each cell against the reference method's cell that is the same but for the method.

    The same are targets, widths, strategy, group size, quantized inputs, and symmetry where both methods have it; bits per
    weight agree within .02, of the whole model and of what was touched. `gain` is the reference's drop minus the
    method's: positive is better than the reference. `label` names the place: two rows of one label differ in method, method
    knobs or calibration only. `seed` tells calibration seeds apart, where there are several; they are points and are not
    folded into the interval.
    """
    rows = cells[(cells["part"] != "none") & ~cells["several_methods"]]
    places: dict[str, list[dict[Any, Any]]] = {}
    for row in rows.to_dict("records"):
        row["entries"] = entries(row["recipe_json"])
        row["name"] = row["entries"][0]["method"]
        places.setdefault(_place(row["entries"]), []).append(row)
    found = [_pair(r, ref, metric, draws) for same in places.values() for ref in same if ref["name"] == reference
             for r in same if r["name"] != reference and _alike(r, ref)]  # fmt: skip
    return pd.DataFrame(found)


def _place(listed: list[dict[str, Any]]) -> str:
    """What a recipe does, whatever the method."""
    return json.dumps([[e.get(k) for k in PLACE] for e in listed], sort_keys=True)


def _alike(row: dict[Any, Any], ref: dict[Any, Any]) -> bool:
    symmetric = zip(row["entries"], ref["entries"], strict=True)
    if any(_differ(one.get("symmetric"), other.get("symmetric")) for one, other in symmetric):
        return False
    return all(abs(row[c] - ref[c]) <= SAME_SIZE for c in SIZES)


def _differ(one: bool | None, other: bool | None) -> bool:
    """A method without the knob is neither symmetric nor asymmetric; its size tells them apart."""
    return one is not None and other is not None and one != other


def _pair(row: dict[Any, Any], ref: dict[Any, Any], metric: str, draws: Draws | None) -> dict[str, Any]:
    told = {c: row[c] for c in ("key", "method", "setting", "line", "parts", "width", "bits_per_weight", "seed")}
    gain = ref[f"drop_{metric}"] - row[f"drop_{metric}"]
    low, high = paired_interval(draws, ref["key"], row["key"])
    label = _label(ref["entries"])
    return {**told, "label": label, "reference": ref["key"], "gain": gain, "low": low, "high": high}


def _label(listed: list[Entry]) -> str:
    """`vision first mlp + language 4 bits`; what is `all`, and the default strategy, are left out."""
    widths = list(dict.fromkeys(e["bits"] for e in listed))
    words = [" ".join(w for w in str(e["target"]).split(":") if w != "all") for e in listed]
    words = [f"{w} {e['bits']}" for w, e in zip(words, listed, strict=True)] if len(widths) > 1 else words
    how = dict.fromkeys(_how(e) for e in listed)
    return " + ".join(words) + (f" {widths[0]}" if len(widths) == 1 else "") + " bits" + "".join(how)


def _how(entry: Entry) -> str:
    words = [f" {entry['strategy']}{entry.get('group_size') or ''}"] if entry.get("strategy") != "channel" else []
    words += [" symmetric"] if entry.get("symmetric") else []
    words += [f", inputs {entry['input']['bits']}"] if entry.get("input") else []
    return "".join(words)
