"""The text of `load.py`, which loads a folder with several schemes: it knows transformers and compressed-tensors alone."""

LOADER = '''"""Loads this folder: python -c "from load import load; model = load()", with transformers and compressed-tensors.

transformers gives all layers the first of several schemes, and multiplies in the dtype of the scales. Here each layer has
its own scheme, and its weight is computed in float32.
"""

import json
from pathlib import Path

import torch
import transformers
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationScheme
from safetensors.torch import load_file

FOLDER = Path(__file__).resolve().parent
DTYPES = {dtypes!r}
NAMES = ("weight_packed", "weight_scale", "weight_shape", "weight_zero_point")


def load(folder=FOLDER):
    """The model with dense weights, each part in the dtype it was evaluated in."""
    config = json.loads((folder / "config.json").read_text())
    quantization = config.pop("quantization_config")
    state = {{k: v for file in sorted(folder.glob("*.safetensors")) for k, v in load_file(file).items()}}
    unpack = BaseCompressor.get_value_from_registry(quantization["format"])
    for group in quantization["config_groups"].values():
        scheme = QuantizationScheme(**group)
        for path in (t for t in group["targets"] if not t.startswith("re:")):
            own = {{n: state.pop(f"{{path}}.{{n}}") for n in NAMES if f"{{path}}.{{n}}" in state}}
            own["weight_scale"] = own["weight_scale"].float()
            state[f"{{path}}.weight"] = unpack.decompress(own, scheme)["weight"]
    class_ = getattr(transformers, config["architectures"][0])
    one = set(DTYPES.values())
    dtype = getattr(torch, one.pop()) if len(one) == 1 else torch.float32
    model = class_.from_pretrained(None, config=class_.config_class.from_dict(config), state_dict=state, dtype=dtype)
    for name, parameter in model.named_parameters():
        parts = [p for p in DTYPES if not p or name == p or name.startswith(p + ".")]
        if parameter.is_floating_point() and parts:
            parameter.data = parameter.data.to(getattr(torch, DTYPES[max(parts, key=len)]))
    if (folder / "generation_config.json").exists():
        model.generation_config = transformers.GenerationConfig.from_pretrained(folder)
    return model.eval()
'''
