"""The wire format: what processes and versions tell each other, as types. Names are those on disk.

A cell's job goes from planning through a pack to a worker (`pack.py`); the worker's lines go through a journal to whoever makes
tables (`lines.py`). What is read from a file is checked once, where it is read.
"""
