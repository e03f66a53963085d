"""One process that runs cells, and the one that watches it."""
