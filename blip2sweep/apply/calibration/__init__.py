"""Calibrated methods over a model: the samples run block by block, and layers are measured and quantized on the way."""

from blip2sweep.apply.calibration.engine import Calibrator
from blip2sweep.apply.calibration.finished import Blocks
from blip2sweep.apply.calibration.record import layers, summary, warn_short
from blip2sweep.apply.calibration.samples import origin, same_samples, variants

__all__ = ["Blocks", "Calibrator", "layers", "origin", "same_samples", "summary", "variants", "warn_short"]
