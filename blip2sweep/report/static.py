"""The six figures for a paper: PNG or PDF by matplotlib, from the same frames as the page."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from blip2sweep.report.dropoff import COLOURS, MARKERS
from blip2sweep.report.figures import Figure
from blip2sweep.store import write_atomic

Draw = Callable[[Any, pd.DataFrame, str], None]


def write_static(made: Sequence[Figure], folder: Path, kind: str, metric: str) -> list[Path]:
    """One file a figure that has data. kind: png or pdf. metric: as people write it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    paths = []
    for figure in made:
        if figure.empty or figure.name not in DRAW:
            continue
        picture = plt.figure(figsize=(9, 4.2), layout="constrained")
        DRAW[figure.name](picture, figure.data, metric)
        buffer = io.BytesIO()
        picture.savefig(buffer, format=kind, dpi=160)
        plt.close(picture)
        paths.append(folder / f"{figure.name}.{kind}")
        write_atomic(paths[-1], buffer.getvalue())
    return paths


def _panels(picture: Any, values: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """(value, axis) side by side; six at most."""
    shown = list(values)[:6]
    axes = picture.subplots(1, max(1, len(shown)), squeeze=False)[0]
    for value, axis in zip(shown, axes, strict=False):
        axis.set_title(str(value), fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        yield value, axis


def _errors(own: pd.DataFrame, value: str, low: str, high: str) -> Any:
    ends = [own[value] - own[low], own[high] - own[value]]
    return np.nan_to_num(np.clip(np.array(ends, dtype=float), 0, None))


def _style(i: int) -> dict[str, Any]:
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "markersize": 5}


def _legend(axis: Any) -> None:
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=8)


def _dropoff(picture: Any, data: pd.DataFrame, metric: str) -> None:
    main = data[data["headline"]]
    widths = sorted(main["width"].unique(), reverse=True)
    for setting, axis in _panels(picture, list(main["setting"].unique())):
        own = main[main["setting"] == setting]
        axis.axhline(100, color="0.5", linewidth=1, linestyle="--")
        half = (100 * own["noise"] / own["baseline"].abs()).max()
        if half == half:
            axis.axhspan(100 - half, 100 + half, color="0.85", zorder=0, label="noise floor")
        for i, (parts, line) in enumerate(own.groupby("parts", sort=False)):
            points = line[line["point"]]  # further calibration seeds
            axis.plot(points["width"].map(widths.index) + 0.04 * i, points["retained"], linestyle="", **_style(i))
            line = line[~line["point"]].sort_values("width", ascending=False)
            x = line["width"].map(widths.index).to_numpy(float) + 0.04 * i
            bars = _errors(line, "retained", "retained_low", "retained_high")
            axis.errorbar(x, line["retained"], yerr=bars, capsize=2, label=parts, **_style(i))
        axis.set_xticks(range(len(widths)), [f"{w:g}" for w in widths])
        axis.set(xlabel="bits", ylabel=f"{metric}, % of the baseline")
        _legend(axis)


def _frontier(picture: Any, data: pd.DataFrame, metric: str) -> None:
    for _, axis in _panels(picture, [""]):
        for i, (setting, own) in enumerate(data.groupby("setting", sort=False)):
            own, colour = own.sort_values("bits_per_weight"), COLOURS[i % len(COLOURS)]
            axis.step(own["bits_per_weight"], own["value"], where="post", color=colour, label=setting)
            faces = ["none" if like else colour for like in own["like_baseline"]]
            axis.scatter(
                own["bits_per_weight"], own["value"], facecolors=faces, edgecolors=colour, marker=MARKERS[i % 7]
            )
        held = ", held-out images" if data["held_out"].any() else ""
        axis.set(xlabel="bits per weight, whole model", ylabel=metric + held)
        _legend(axis)


def _blocks(picture: Any, data: pd.DataFrame, metric: str) -> None:
    own = data[data["headline"]]
    spread = own.groupby(["setting", "width", "part", "kind"])["effect"].agg(lambda e: e.max() - e.min())
    most: Any = spread.groupby(["setting", "width"]).sum().idxmax()
    setting, width = most
    own = own[(own["setting"] == setting) & (own["width"] == width)]
    for part, axis in _panels(picture, list(own["part"].unique())):
        for i, (kind, line) in enumerate(own[own["part"] == part].groupby("kind", sort=False)):
            line = line.sort_values("first")
            x = (line["first"] + line["last"]) / 2
            axis.errorbar(
                x, line["effect"], yerr=_errors(line, "effect", "low", "high"), capsize=2, label=kind, **_style(i)
            )
            axis.fill_between(
                x, line["band_low"].astype(float), line["band_high"].astype(float), alpha=0.15, color=COLOURS[i]
            )
        axis.set(xlabel="block", ylabel=f"effect on {metric}")
        axis.set_title(f"{part}, {setting}, {width:g} bits", fontsize=9)
        _legend(axis)


def _map(picture: Any, data: pd.DataFrame, metric: str) -> None:
    setting = next(s for s in data["setting"] if s != "none")
    shown = data[data["setting"].isin([setting, "none"])]
    x, y = (sorted(shown[p].unique()) for p in ("llm", "vit"))
    counts = shown["qformer"].value_counts() if "qformer" in shown else pd.Series({None: len(shown)})
    widths = [w for w in sorted(counts.index, reverse=True) if counts[w] > 1] if "qformer" in shown else [None]
    names = {w: f"Q-Former {'–' if w == 16 else f'{w:g}'}" if w is not None else "" for w in widths}
    for name, axis in _panels(picture, list(names.values())):
        own = shown[[w is None or names.get(w) == name for w in shown.get("qformer", [None] * len(shown))]]
        grid = own.pivot_table(index="vit", columns="llm", values="drop").reindex(index=y, columns=x)
        axis.imshow(grid, cmap="cividis_r", vmin=0, vmax=shown["drop"].max(), origin="lower", aspect="auto")
        size = own.pivot_table(index="vit", columns="llm", values="size").reindex(index=y, columns=x)
        if size.notna().all().all() and min(size.shape) > 1:
            axis.clabel(axis.contour(size, colors="k", linewidths=0.7, linestyles=":"), fontsize=7)
        for row in own[(own["low"] <= 0) & (own["high"] >= 0)].to_dict("records"):
            spot = (x.index(row["llm"]) - 0.5, y.index(row["vit"]) - 0.5)
            axis.add_patch(_hatched(spot))
        axis.set_xticks(range(len(x)), ["–" if w == 16 else f"{w:g}" for w in x])
        axis.set_yticks(range(len(y)), ["–" if w == 16 else f"{w:g}" for w in y])
        axis.set(xlabel="LLM bits", ylabel="ViT bits")


def _hatched(spot: tuple[float, float]) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(spot, 1, 1, fill=False, hatch="///", edgecolor="0.4", linewidth=0)


def _shapley(picture: Any, data: pd.DataFrame, metric: str) -> None:
    for setting, axis in _panels(picture, list(data["setting"].unique())):
        own = data[data["setting"] == setting]
        widths = sorted(own["width"].unique(), reverse=True)
        table = own[own["kind"] == "part"].pivot_table(index="width", columns="term", values="value").reindex(widths)
        up, down = np.zeros(len(widths)), np.zeros(len(widths))
        for i, term in enumerate(table):
            values = table[term].to_numpy(float)
            axis.bar(
                range(len(widths)),
                values,
                bottom=np.where(values >= 0, up, down),
                color=COLOURS[i],
                label=term,
                width=0.6,
            )
            up, down = up + np.clip(values, 0, None), down + np.clip(values, None, 0)
        whole = own[own["kind"] == "whole"].set_index("width").reindex(widths)
        bars = _errors(whole, "value", "low", "high")
        axis.errorbar(
            range(len(widths)),
            whole["value"],
            yerr=bars,
            fmt="D",
            mfc="none",
            color="k",
            capsize=2,
            label="interaction",
        )
        axis.set_xticks(range(len(widths)), [f"{w:g}" for w in widths])
        axis.set(xlabel="bits", ylabel=f"drop of {metric}")
        _legend(axis)


def _methods(picture: Any, data: pd.DataFrame, metric: str) -> None:
    places = list(dict.fromkeys(data["label"]))[::-1]
    for _, axis in _panels(picture, [""]):
        axis.axvline(0, color="0.5", linewidth=1, linestyle=":")
        for i, (setting, own) in enumerate(data.groupby("setting", sort=False)):
            y = [places.index(p) + 0.1 * i for p in own["label"]]
            style = {k: v for k, v in _style(i).items() if k != "marker"}
            axis.errorbar(
                own["gain"],
                y,
                xerr=_errors(own, "gain", "low", "high"),
                fmt=MARKERS[i % 7],
                capsize=2,
                label=setting,
                **style,
            )
        axis.set_yticks(range(len(places)), [p[:48] for p in places], fontsize=7)
        axis.set(xlabel=f"gain in {metric} over RTN")
        _legend(axis)


DRAW: dict[str, Draw] = {
    "dropoff": _dropoff, "frontier": _frontier, "blocks": _blocks, "map": _map, "shapley": _shapley, "methods": _methods,
}  # fmt: skip
