"""What a user may set: the typed config, overrides and grids. Besides the entry points, only this folder imports Hydra."""
