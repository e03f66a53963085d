"""Helpers of `scripts/train_tiny_llava.py`; what both embedded models share is in `scripts.tiny`."""
