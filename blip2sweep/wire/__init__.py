"""The wire format: the data that processes and versions exchange, as types. The names are those on disk.

A cell's job goes from planning to a worker in a pack (`pack.py`). The worker's lines go to the makers of tables in a
journal (`lines.py`). Data from a file is checked once, where it is read.
"""
