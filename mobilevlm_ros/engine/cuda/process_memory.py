# SPDX-License-Identifier: Apache-2.0
"""Memory that this process holds on NVIDIA GPUs, as the driver's management library (NVML) counts it."""

from __future__ import annotations

import ctypes
import os
from typing import Any

LIBRARY = "libnvidia-ml.so.1"
"""Comes with the driver; Jetson has none that counts processes: a GPU there uses the machine's memory."""

_SUCCESS, _MOST = 0, 256
_UNKNOWN = 2**64 - 1  # NVML_VALUE_NOT_AVAILABLE


class _Process(ctypes.Structure):
    """nvmlProcessInfo_t of version 2 and 3 (nvml.h)."""

    _fields_ = (
        ("pid", ctypes.c_uint),
        ("used", ctypes.c_ulonglong),  # bytes
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


def process_memory(library: Any = None, pid: int | None = None) -> int:
    """Bytes that a process (by default this one) holds on all GPUs; 0 where nobody tells.

    In a container NVML tells the process numbers of the host. Where none is known here and one process alone
    computes on the GPUs, it is this one, provided that it computes there: ask only then.

    Args:
        library: stands in for NVML.
        pid: process number.
    """
    pid = os.getpid() if pid is None else pid
    try:
        nvml = ctypes.CDLL(LIBRARY) if library is None else library
        if nvml.nvmlInit_v2() != _SUCCESS:
            return 0
        try:
            used = _used(nvml)
        finally:
            nvml.nvmlShutdown()
    except (OSError, AttributeError):  # no driver; or one that lacks a function
        return 0
    if pid not in used and len(used) == 1:
        return sum(used.values())
    return used.get(pid, 0)


def _used(nvml: Any) -> dict[int, int]:
    """Bytes by process number, over all GPUs."""
    count, used = ctypes.c_uint(0), dict[int, int]()
    if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != _SUCCESS:
        return used
    for index in range(count.value):
        device, length = ctypes.c_void_p(), ctypes.c_uint(_MOST)
        processes = (_Process * _MOST)()
        if nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)) != _SUCCESS:
            continue
        ask = getattr(nvml, "nvmlDeviceGetComputeRunningProcesses_v3", None)
        ask = ask or nvml.nvmlDeviceGetComputeRunningProcesses_v2  # drivers before 510
        if ask(device, ctypes.byref(length), processes) != _SUCCESS:
            continue
        for process in processes[: length.value]:
            if process.used != _UNKNOWN:
                used[process.pid] = used.get(process.pid, 0) + process.used
    return used
