"""blip2sweep: find out where a vision-language model breaks when it is compressed."""

__version__ = "0.1.0"
