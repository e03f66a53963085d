"""Helpers of `scripts/train_tiny_itm.py`; what all embedded models share is in `scripts.tiny`."""
