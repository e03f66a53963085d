"""The energy that a device says it has used: a GPU by NVML, a CPU by RAPL. Both count all that runs on the device.

NVML is the driver's own library. The files of RAPL are readable for root alone on most machines.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

RAPL = Path("/sys/class/powercap")
Meter = Callable[[], float | None]  # joules since some time; None where the device does not tell


def cpu_meter(root: Path = RAPL) -> Meter | None:
    """The joules of all CPU packages. None where they cannot be read."""
    packages = [_Package(p) for p in sorted(root.glob("*-rapl:*")) if p.name.count(":") == 1]

    def joules() -> float | None:
        read = [package() for package in packages]
        return None if None in read else sum(j for j in read if j is not None)

    return joules if packages and joules() is not None else None


class _Package:
    """The counter of one package, which begins at 0 again after its range."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._last, self._before = folder, 0, 0

    def __call__(self) -> float | None:
        try:
            now, most = (int((self.folder / n).read_text()) for n in ("energy_uj", "max_energy_range_uj"))
        except (OSError, ValueError):
            return None
        if now < self._last:
            self._before += most
        self._last = now
        return (self._before + now) / 1e6


def gpu_meter(uuid: str) -> Meter | None:
    """The joules of a GPU. uuid: as CUDA and nvidia-smi name it. None where its driver does not tell."""
    library, handle, used = _nvml(), ctypes.c_void_p(), ctypes.c_ulonglong()
    if library is None or library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle)):
        return None

    def joules() -> float | None:
        failed = library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(used))
        return None if failed else used.value / 1e3

    return joules if joules() is not None else None


@lru_cache
def _nvml() -> ctypes.CDLL | None:
    """The library, ready to be asked; None where there is none, or one without the functions above."""
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libnvidia-ml.so.1")
        wanted = library.nvmlDeviceGetHandleByUUID, library.nvmlDeviceGetTotalEnergyConsumption
        return library if not library.nvmlInit_v2() and all(wanted) else None
    return None
