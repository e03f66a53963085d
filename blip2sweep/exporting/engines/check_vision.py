#!/usr/bin/env python3
"""Runs the exported graphs of the image side on the test picture, and compares what they see with the cell's model.

check_vision.py [--provider CUDAExecutionProvider] [--features FILE.npy]: of the graphs, or of a file that an engine wrote.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--provider", default="CPUExecutionProvider")
    parser.add_argument("--features", type=Path, help="what an engine made of test_pixels.npy, as .npy")
    parser.add_argument(
        "--at-most", type=float, default=0.02, help="largest difference, as a share of the largest number"
    )
    given = parser.parse_args()
    wanted = np.load(HERE / "test_features.npy")
    found = np.load(given.features) if given.features else by_graphs(given.provider)
    if found.shape != wanted.shape:
        sys.exit(f"features {found.shape}; right: {wanted.shape}")
    off = float(np.abs(found.astype(np.float32) - wanted).max() / np.abs(wanted).max())
    print(f"largest difference {off:.2e} of the largest number")
    if not off <= given.at_most:
        sys.exit(f"more than {given.at_most}: this is another model, or other preprocessing")


def by_graphs(provider: str) -> np.ndarray:
    """(1, queries, width of the language model) of test_pixels.npy."""
    import onnxruntime

    state = {"pixels": np.load(HERE / "test_pixels.npy")}
    for name in ("vision", "bridge"):
        session = onnxruntime.InferenceSession(str(HERE / "graphs" / f"{name}.onnx"), providers=[provider])
        outputs = [x.name for x in session.get_outputs()]
        state = dict(
            zip(outputs, session.run(outputs, {x.name: state[x.name] for x in session.get_inputs()}), strict=True)
        )
    return np.asarray(state["pictures"])


if __name__ == "__main__":
    main()
