"""The bridge to lmms-eval: bridge.py is printed by `blip2sweep lmms bridge`, and nothing here imports it."""
