"""Architectures: what a model is made of, its checkpoint, and how it computes. This file imports nothing."""
