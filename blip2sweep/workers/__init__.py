"""The process that runs cells, and the process that supervises it."""
