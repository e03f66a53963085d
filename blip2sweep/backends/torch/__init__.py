"""The default back end: cells on this process's device, sharing all work that is the same."""
