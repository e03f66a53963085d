"""Hydra's launchers and sweeper for blip2sweep: thin classes that call blip2sweep. No torch here."""
