"""What can be done to a model; one package a kind. Tensors and shapes; no recipe, no model code."""
