"""Training after compression: methods, options and entries. Planning reads this, so torch is not imported."""
