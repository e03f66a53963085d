"""Layers that onnxruntime's own tools round (`Method.backend`): in a file, after the graph was written to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

from blip2sweep.compression.quantize.scheme import Scheme
from blip2sweep.exporting.onnx_graphs.filled import FP32
from blip2sweep.exporting.onnx_graphs.traced import quiet

INT8, INT4 = "ort_int8", "ort_int4"


def round_layers(path: Path, schemes: Mapping[str, Scheme]) -> None:
    """Round layers of a graph in a file, in place. schemes: {path of a layer in the graph}.

    Raises RuntimeError unless exactly these are rounded.
    """
    matmuls = _matmuls(path)
    with quiet():
        for scheme in dict.fromkeys(schemes.values()):
            _round(path, [p for p, s in schemes.items() if s == scheme], scheme)
    gone = matmuls - _matmuls(path)
    if gone != schemes.keys():
        wrong = min(gone ^ schemes.keys())
        raise RuntimeError(f"{path.name}: onnxruntime rounded {len(gone)} layers, not {len(schemes)}, such as {wrong}")


def _matmuls(path: Path) -> set[str]:
    return {n.name for n in onnx.load(path, load_external_data=False).graph.node if n.op_type == "MatMul"}


def _round(path: Path, layers: Sequence[str], scheme: Scheme) -> None:
    if scheme.weights.method == INT8:
        _dynamic(path, layers)
    else:
        _n_bits(path, layers, scheme)


def _dynamic(path: Path, layers: Sequence[str]) -> None:
    """int8 weights, a scale and a zero point for each channel; each input has the range of its tensor."""
    model = onnx.load(path)
    quantize_dynamic(
        model, path, nodes_to_quantize=list(layers), per_channel=True, weight_type=QuantType.QInt8,
        use_external_data_format=False, extra_options={"MatMulConstBOnly": True},
    )  # fmt: skip
    _resave(onnx.load(path), path)


def _n_bits(path: Path, layers: Sequence[str], scheme: Scheme) -> None:
    """4-bit codes of rounding to nearest, in blocks."""
    model, w = onnx.load(path), scheme.weights
    rows = {n.name: n.input[1] for n in model.graph.node if n.name in layers}
    lengths = {x.name: x.dims[0] for x in model.graph.initializer if x.name in rows.values()}
    for size in {w.group_size or n for n in lengths.values()}:  # a row of one group says no size
        own = [name for name, x in rows.items() if (w.group_size or lengths[x]) == size]
        config = DefaultWeightOnlyQuantConfig(
            block_size=size, is_symmetric=bool(w.symmetric), accuracy_level=FP32, bits=w.num_bits
        )
        quantizer = MatMulNBitsQuantizer(model, nodes_to_include=own, algo_config=config)
        quantizer.process()
        model = quantizer.model.model
    _resave(model, path)


def _resave(model: onnx.ModelProto, path: Path) -> None:
    data = path.with_name(f"{path.name}.data")
    path.unlink()
    data.unlink(missing_ok=True)
    onnx.save_model(
        model, path, save_as_external_data=True, all_tensors_to_one_file=True, location=data.name, size_threshold=256
    )
