# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from mobilevlm_ros.engine.cuda.process_memory import process_memory

PID = os.getpid()
MIB = 1 << 20


def nvml(*gpus: dict[int, int], **broken: int) -> SimpleNamespace:
    """NVML of GPUs that hold so many bytes for these processes, called as ctypes would call it; `broken`
    functions return that code.
    """

    def count(pointer: Any) -> int:
        pointer._obj.value = len(gpus)
        return broken.get("count", 0)

    def handle(index: int, pointer: Any) -> int:
        pointer._obj.value = index + 1
        return broken.get("handle", 0)

    def processes(device: Any, length: Any, found: Any) -> int:
        held = gpus[device.value - 1]
        assert length._obj.value >= len(held)
        length._obj.value = len(held)
        for entry, (pid, used) in zip(found, held.items()):
            entry.pid, entry.used = pid, used
        return broken.get("processes", 0)

    return SimpleNamespace(
        nvmlInit_v2=lambda: broken.get("init", 0),
        nvmlShutdown=lambda: 0,
        nvmlDeviceGetCount_v2=count,
        nvmlDeviceGetHandleByIndex_v2=handle,
        nvmlDeviceGetComputeRunningProcesses_v3=processes,
    )


def test_what_this_process_holds_on_all_gpus_is_added() -> None:
    assert process_memory(nvml({PID: 700 * MIB, 1: 5 * MIB}, {PID: 24 * MIB})) == 724 * MIB


def test_in_a_container_the_only_process_is_this_one() -> None:
    assert process_memory(nvml({4_000_001: 90 * MIB})) == 90 * MIB
    assert process_memory(nvml({4_000_001: 90 * MIB, 4_000_002: MIB})) == 0


def test_an_older_driver_is_asked_its_way() -> None:
    old = nvml({PID: MIB})
    old.nvmlDeviceGetComputeRunningProcesses_v2 = old.nvmlDeviceGetComputeRunningProcesses_v3
    del old.nvmlDeviceGetComputeRunningProcesses_v3
    assert process_memory(old) == MIB


@pytest.mark.parametrize(
    "silent",
    [
        SimpleNamespace(),
        nvml({PID: MIB}, init=9),
        nvml({PID: MIB}, count=1),
        nvml({PID: MIB}, handle=15),
        nvml({PID: MIB}, processes=3),
        nvml({PID: 2**64 - 1}),
        nvml(),
    ],
)
def test_where_nobody_tells_it_is_0(silent: SimpleNamespace) -> None:
    assert process_memory(silent) == 0
