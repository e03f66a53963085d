"""onnxruntime runs the graphs of a model: CPU or CUDA, in float32, with the codes of the recipe."""
