"""The dummy evaluator under the name that packs of version 0.1 may carry. It goes on 2027-06-01."""

from blip2sweep.backends.dummy import Dummy

__all__ = ["Dummy"]
