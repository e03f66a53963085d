"""Calibrated methods over a model: the samples run block by block, layers measured and quantized on the way."""

from blip2sweep.calibration.blocks import Blocks
from blip2sweep.calibration.engine import Calibrator
from blip2sweep.calibration.job import origin, same_samples, variants
from blip2sweep.calibration.record import layers, summary, warn_short

__all__ = ["Blocks", "Calibrator", "layers", "origin", "same_samples", "summary", "variants", "warn_short"]
