"""Graphs of a model as ONNX: traced once without weights (`traced`), and filled with those of each recipe (`filled`)."""
