"""From configs to cells, keys and packs. No torch, no weights."""
