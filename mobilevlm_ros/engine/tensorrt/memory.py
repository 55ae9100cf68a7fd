# SPDX-License-Identifier: Apache-2.0
"""Places on the GPU that live as long as the object that names them."""

from __future__ import annotations

import contextlib
import ctypes
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mobilevlm_ros.engine.cuda.runtime import Cuda
from mobilevlm_ros.errors import EngineError


class Allocation:
    """Memory on the GPU, given back when this object goes."""

    def __init__(self, cuda: Cuda, nbytes: int) -> None:
        """Raises DeviceMemoryError."""
        self.nbytes = nbytes
        self.address = cuda.malloc(nbytes)
        _when_gone(self, cuda.free, self.address)


class PinnedBuffer:
    """An input or output of fixed place: pinned memory of the host and its twin on the GPU."""

    def __init__(self, cuda: Cuda, shape: Sequence[int], dtype: DTypeLike) -> None:
        """Holds arrays of up to `shape`. Raises DeviceMemoryError."""
        self._cuda = cuda
        self._dtype = np.dtype(dtype)
        nbytes = int(np.prod(shape)) * self._dtype.itemsize
        self._device = Allocation(cuda, nbytes)
        pinned = cuda.malloc_host(nbytes)
        _when_gone(self, cuda.free_host, pinned)
        self._pinned = pinned
        self._host = np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(pinned)).view(self._dtype)

    @property
    def address(self) -> int:
        """On the GPU."""
        return self._device.address

    def write(self, values: NDArray[Any], stream: int) -> None:
        """Puts an array into the stream's order. The stream must be idle, or the last `write` is changed."""
        flat = self._host[: values.size]
        flat.reshape(values.shape)[...] = values
        self._cuda.copy(self.address, self._pinned, flat.nbytes, stream)

    def read(self, shape: Sequence[int], stream: int) -> NDArray[Any]:
        """Waits for the stream; returns a copy of what the GPU left here."""
        flat = self._host[: int(np.prod(shape))]
        self._cuda.copy(self._pinned, self.address, flat.nbytes, stream)
        self._cuda.synchronize(stream)
        return flat.reshape(tuple(shape)).copy()


class Graph:
    """A recorded CUDA graph, given back when this object goes."""

    def __init__(self, cuda: Cuda, handle: int) -> None:
        self.handle = handle
        _when_gone(self, cuda.destroy_graph, handle)


def _when_gone(owner: object, release: Callable[[int], None], handle: int) -> None:
    weakref.finalize(owner, _quietly, release, handle).atexit = False  # the process's end frees everything


def _quietly(release: Callable[[int], None], handle: int) -> None:
    with contextlib.suppress(EngineError):  # a GPU that is lost has nothing to give back
        release(handle)
