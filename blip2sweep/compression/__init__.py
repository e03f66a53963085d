"""What can be done to a model: step.py says what a step is, undo.py takes it back; one module or package a kind.

Tensors, shapes and the anatomy; no recipe, no code of a model.
"""
