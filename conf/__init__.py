"""The YAML of the config. Importing it, as Hydra does to read it, makes its schema known to Hydra."""

from blip2sweep.config.schema import register

register()
