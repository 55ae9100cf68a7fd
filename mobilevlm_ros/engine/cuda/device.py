# SPDX-License-Identifier: Apache-2.0
"""Is there an NVIDIA GPU, and which? Asks the driver itself: no CUDA toolkit, no package, no memory."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

DRIVER = "libcuda.so.1"
"""Comes with the driver, on Jetson with the board's software."""
ORIN = (8, 7)
"""Compute capability of every Jetson Orin."""

# Of the driver API's CUdevice_attribute (cuda.h).
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76


@dataclass(frozen=True)
class Gpu:
    """The first GPU of the machine."""

    name: str
    capability: tuple[int, int]
    """Compute capability, e.g. (8, 7)."""

    def __str__(self) -> str:
        return f"{self.name} (sm_{self.capability[0]}{self.capability[1]})"


def find_gpu(driver: Any = None) -> Gpu | None:
    """The GPU that CUDA would use, or None. `driver` stands in for the driver's library.

    Takes no memory on the GPU and leaves no context. A driver that cannot start counts as none.
    """
    try:
        cuda = ctypes.CDLL(DRIVER) if driver is None else driver
        count, device = ctypes.c_int(0), ctypes.c_int(0)
        if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)) or count.value < 1:
            return None
        if cuda.cuDeviceGet(ctypes.byref(device), 0):
            return None
        name = ctypes.create_string_buffer(256)
        cuda.cuDeviceGetName(name, len(name), device)
        capability = []
        for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR):
            value = ctypes.c_int(0)
            cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
            capability.append(value.value)
    except (OSError, AttributeError):  # no driver; or one that lacks a function
        return None
    return Gpu(name.value.decode(errors="replace"), (capability[0], capability[1]))
