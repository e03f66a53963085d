"""BLIP-2: vision, connector and language model, as functions of a batch."""
