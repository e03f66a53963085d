"""The model: built on the meta device for planning, loaded from safetensors, quantized in place and taken back."""

from blip2sweep.models.load import Loaded, load
from blip2sweep.models.patch import Applied, Patch, apply
from blip2sweep.models.tree import build_meta, tree, verify

__all__ = ["Applied", "Loaded", "Patch", "apply", "build_meta", "load", "tree", "verify"]
