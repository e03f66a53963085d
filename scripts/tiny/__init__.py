"""Helpers of `scripts/train_tiny.py`: data, training, rescaling, evaluation and card of the embedded tiny BLIP-2."""
