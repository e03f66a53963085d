"""From configs to cells, keys and packs. Imports no torch and reads no weights."""
