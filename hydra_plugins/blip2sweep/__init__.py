"""Hydra's launcher and sweeper for blip2sweep: thin classes that call blip2sweep.sweep. No torch here."""
