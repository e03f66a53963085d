"""What a user may say: the typed config, overrides, grids. The only room besides the doors that knows Hydra."""
