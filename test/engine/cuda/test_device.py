# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ctypes
from types import SimpleNamespace

import pytest

from mobilevlm_ros.engine.cuda.device import ORIN, Gpu, find_gpu


def driver(code: int = 0, count: int = 1) -> SimpleNamespace:
    """libcuda of an Orin, called as ctypes would call it."""

    def device_count(pointer: object) -> int:
        pointer._obj.value = count
        return 0

    def name(buffer: ctypes.Array, length: int, device: object) -> int:
        buffer.value = b"Orin (nvgpu)"
        return 0

    def attribute(pointer: object, which: int, device: object) -> int:
        pointer._obj.value = {75: 8, 76: 7}[which]
        return 0

    return SimpleNamespace(
        cuInit=lambda flags: code,
        cuDeviceGetCount=device_count,
        cuDeviceGet=lambda pointer, index: 0,
        cuDeviceGetName=name,
        cuDeviceGetAttribute=attribute,
    )


def test_the_driver_names_the_gpu():
    gpu = find_gpu(driver())
    assert gpu == Gpu("Orin (nvgpu)", ORIN)
    assert str(gpu) == "Orin (nvgpu) (sm_87)"


@pytest.mark.parametrize("broken", [driver(code=100), driver(count=0), SimpleNamespace()])
def test_no_usable_driver_is_no_gpu(broken):
    assert find_gpu(broken) is None
