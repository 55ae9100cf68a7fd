# SPDX-License-Identifier: Apache-2.0
"""The ctypes layer on a stand-in with CUDA's signatures, and its symbols against the real libraries."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from mobilevlm_ros.engine.cuda import runtime as module
from mobilevlm_ros.engine.cuda.runtime import Cuda
from mobilevlm_ros.engine.tensorrt.memory import PinnedBuffer
from mobilevlm_ros.errors import DeviceLost, DeviceMemoryError, EngineError

RUNTIMES = {
    "11.8": "nvidia-cuda-runtime-cu11==11.8.89",
    "12.9": "nvidia-cuda-runtime-cu12==12.9.79",
    "13.0": "nvidia-cuda-runtime==13.0.48",
}


@pytest.mark.parametrize("version", RUNTIMES)
def test_the_real_runtimes_have_every_function_and_say_that_there_is_no_gpu(unpack_wheel, version):
    (path,) = unpack_wheel(RUNTIMES[version]).rglob("libcudart.so.*")
    library = ctypes.CDLL(str(path))
    count = ctypes.c_int()
    if library.cudaGetDeviceCount(ctypes.byref(count)) == 0 and count.value:
        assert Cuda(library).memory()[1] > 1 << 30
        return
    with pytest.raises(DeviceLost, match=r"no NVIDIA driver, or it is older|no CUDA device"):
        Cuda(library)


def test_an_old_runtime_is_told_what_it_lacks():
    with pytest.raises(EngineError, match=r"lacks cudaGetDeviceCount; CUDA 11\.4"):
        Cuda(ctypes.CDLL(None))


def test_arrays_go_to_the_gpu_and_back(cuda):
    stream = cuda.stream()
    assert stream > 1 << 32  # a handle of 64 bits arrives whole
    port = PinnedBuffer(cuda, (3, 4), np.float32)
    values = np.arange(8, dtype=np.float32).reshape(2, 4)
    port.write(values, stream)
    np.testing.assert_array_equal(port.read((2, 4), stream), values)
    free, total = cuda.memory()
    assert 0 < total - free < 1000


def test_rows_are_copied_with_their_pitches(cuda):
    stream = cuda.stream()
    source, target = PinnedBuffer(cuda, (4, 6), np.int32), PinnedBuffer(cuda, (4, 8), np.int32)
    values = np.arange(24, dtype=np.int32).reshape(4, 6)
    source.write(values, stream)
    target.write(np.zeros((4, 8), np.int32), stream)
    cuda.copy_rows(target.address + 4, 32, source.address, 24, 12, 4, stream)
    expected = np.zeros((4, 8), np.int32)
    expected[:, 1:4] = values[:, :3]
    np.testing.assert_array_equal(target.read((4, 8), stream), expected)
    cuda.copy_rows(target.address, 32, source.address, 24, 0, 4, stream)  # nothing to do


def test_errors_have_types_and_say_what_to_do(cuda, cudart):
    cudart.stand_in_limit(1 << 20)
    with pytest.raises(DeviceMemoryError, match=r"no memory left for 2\.1 MB .*close other programs"):
        cuda.malloc(1 << 21)
    cuda.free(cuda.malloc(1 << 19))
    cudart.stand_in_fail(b"cudaGraphLaunch", 700)
    with pytest.raises(DeviceLost, match=r"illegal memory access .*start this process again"):
        cuda.launch(1, 1)
    cudart.stand_in_fail(b"cudaFree", 1)
    with pytest.raises(EngineError, match="cudaFree failed: an error"):
        cuda.free(0)


def test_the_runtime_that_finds_a_gpu_is_taken(cudart, cudart_file, monkeypatch):
    names = ["libnothing.so.99", str(cudart_file)]
    monkeypatch.setattr(module, "candidates", lambda: iter(names))
    assert Cuda().memory()[1] > 0
    monkeypatch.setattr(module, "candidates", lambda: iter(names[:1]))
    with pytest.raises(EngineError, match=r"libcudart was not found; install"):
        Cuda()
    library = ctypes.CDLL(str(cudart_file))
    library.stand_in_gpus(0)
    monkeypatch.setattr(module, "candidates", lambda: iter(names))
    try:
        with pytest.raises(DeviceLost, match="no CUDA runtime can use a GPU here"):
            Cuda()
    finally:
        library.stand_in_gpus(1)
