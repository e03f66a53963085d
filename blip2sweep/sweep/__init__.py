"""Entries under their names of version 0.1, for jobs that were queued before the rooms moved. They go on 2027-06-01.

`blip2sweep.sweep` itself is the function of the Python API: it takes the place of this package in `sys.modules`, so that
importing an old entry does not hide it.
"""

import sys

import blip2sweep

_api = blip2sweep.__dict__["sweep"]
_api.__path__, _api.__spec__ = __path__, __spec__
sys.modules[__name__] = _api
