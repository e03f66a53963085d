"""A YAML for a checkpoint of an image-text-to-text model that conf/model does not know, proposed and then proven.

The module tree says which lists of blocks and layers there are. A small random model of the same structure shows which
of them reach the output, and that the adapter computes what the model's own `generate` does.
"""

from blip2sweep.models.discovery.proposal import propose

__all__ = ["propose"]
