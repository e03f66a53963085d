"""BLIP-1: a ViT whose features a BERT reads by cross-attention in every block. It has no connector.

Captioning (`caption`) and question answering (`vqa`) are two models of one type, with different text modules.
"""
