"""The stages of BLIP-2: vision -> bridge -> language. Pure functions per batch; `evaluate.evaluate` strings them together."""
