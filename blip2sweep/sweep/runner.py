"""The torch back end under the name that version 0.1 had for it. It goes on 2027-06-01."""

from blip2sweep.backends.torch.backend import TorchBackend as Runner

__all__ = ["Runner"]
