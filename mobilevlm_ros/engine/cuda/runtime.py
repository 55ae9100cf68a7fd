# SPDX-License-Identifier: Apache-2.0
"""GPU memory, copies, streams and graphs through the CUDA runtime library, by ctypes: CUDA 11.4 to 13."""

from __future__ import annotations

import ctypes
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mobilevlm_ros.errors import DeviceLost, DeviceMemoryError, EngineError

_P, _SIZE, _INT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
_OUT = ctypes.POINTER(ctypes.c_void_p)
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "cudaGetDeviceCount": (ctypes.POINTER(_INT),),
    "cudaSetDevice": (_INT,),
    "cudaMemGetInfo": (ctypes.POINTER(_SIZE), ctypes.POINTER(_SIZE)),
    "cudaMalloc": (_OUT, _SIZE),
    "cudaFree": (_P,),
    "cudaMallocHost": (_OUT, _SIZE),
    "cudaFreeHost": (_P,),
    "cudaMemsetAsync": (_P, _INT, _SIZE, _P),
    "cudaMemcpyAsync": (_P, _P, _SIZE, _INT, _P),
    "cudaMemcpy2DAsync": (_P, _SIZE, _P, _SIZE, _SIZE, _SIZE, _INT, _P),
    "cudaStreamCreateWithFlags": (_OUT, ctypes.c_uint),
    "cudaStreamSynchronize": (_P,),
    "cudaStreamDestroy": (_P,),
    "cudaStreamBeginCapture": (_P, _INT),
    "cudaStreamEndCapture": (_P, _OUT),
    # With flags: the same signature in every version, unlike cudaGraphInstantiate.
    "cudaGraphInstantiateWithFlags": (_OUT, _P, ctypes.c_ulonglong),
    "cudaGraphLaunch": (_P, _P),
    "cudaGraphDestroy": (_P,),
    "cudaGraphExecDestroy": (_P,),
    "cudaGetLastError": (),
}
"""Functions used, with their arguments' types; each returns a cudaError_t."""

# Of driver_types.h; the numbers are the same in 11, 12 and 13.
_DEFAULT_DIRECTION = 4  # cudaMemcpyDefault: from the addresses
_NON_BLOCKING = 1  # cudaStreamNonBlocking: does not wait for stream 0
_THREAD_LOCAL = 1  # cudaStreamCaptureModeThreadLocal: other threads may allocate meanwhile
_OUT_OF_MEMORY = 2
_LOST = {
    4: "the driver is shutting down",
    35: "there is no NVIDIA driver, or it is older than this CUDA runtime",
    46: "all devices are busy or unavailable",
    100: "no CUDA device",
    101: "invalid device",
    214: "uncorrectable memory error",
    700: "illegal memory access",
    702: "a kernel ran too long",
    710: "device assertion",
    719: "launch failure",
    999: "unknown error",
}
"""Errors after which this process cannot use the GPU any more, or cannot use it at all."""
_NAMES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so")


class Cuda:
    """The CUDA runtime on the first GPU. Addresses and handles are plain integers.

    Every method raises DeviceMemoryError when the GPU is full, DeviceLost when it cannot be used (any more),
    EngineError otherwise.
    """

    def __init__(self, library: Any = None) -> None:
        """`library` stands in for libcudart; by default the newest that finds a GPU. Raises EngineError."""
        self._library = _open() if library is None else library
        _declare(self._library)
        self._call("cudaSetDevice", 0)

    def malloc(self, nbytes: int) -> int:
        """Address of `nbytes` on the GPU, aligned to 256."""
        pointer = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(pointer), max(1, nbytes), what=f"{nbytes / 1e6:.1f} MB")
        return pointer.value or 0

    def malloc_host(self, nbytes: int) -> int:
        """Address of `nbytes` of pinned host memory, which asynchronous copies need."""
        pointer = ctypes.c_void_p()
        self._call("cudaMallocHost", ctypes.byref(pointer), max(1, nbytes), what=f"{nbytes / 1e6:.1f} MB")
        return pointer.value or 0

    def free(self, address: int) -> None:
        """Gives back what `malloc` gave."""
        self._call("cudaFree", address)

    def free_host(self, address: int) -> None:
        """Gives back what `malloc_host` gave."""
        self._call("cudaFreeHost", address)

    def clear(self, address: int, nbytes: int, stream: int) -> None:
        """Zeroes memory on the GPU."""
        self._call("cudaMemsetAsync", address, 0, nbytes, stream)

    def copy(self, to: int, source: int, nbytes: int, stream: int) -> None:
        """Copies between any two addresses, in the order of the stream."""
        self._call("cudaMemcpyAsync", to, source, nbytes, _DEFAULT_DIRECTION, stream)

    def copy_rows(
        self, to: int, to_pitch: int, source: int, pitch: int, width: int, rows: int, stream: int
    ) -> None:
        """Copies `rows` pieces of `width` bytes, which begin `pitch` bytes apart."""
        if width and rows:
            self._call(
                "cudaMemcpy2DAsync", to, to_pitch, source, pitch, width, rows, _DEFAULT_DIRECTION, stream
            )

    def stream(self) -> int:
        """A new stream, which runs beside the default one."""
        handle = ctypes.c_void_p()
        self._call("cudaStreamCreateWithFlags", ctypes.byref(handle), _NON_BLOCKING)
        return handle.value or 0

    def synchronize(self, stream: int) -> None:
        """Waits for all that was put into the stream; errors of that work are raised here."""
        self._call("cudaStreamSynchronize", stream)

    def destroy_stream(self, stream: int) -> None:
        """Gives a stream back."""
        self._call("cudaStreamDestroy", stream)

    def begin_capture(self, stream: int) -> None:
        """From here on, work put into the stream is recorded instead of done."""
        self._call("cudaStreamBeginCapture", stream, _THREAD_LOCAL)

    def end_capture(self, stream: int) -> int:
        """What was recorded since `begin_capture`, ready to `launch` any number of times."""
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cudaStreamEndCapture", stream, ctypes.byref(graph))
        try:
            self._call("cudaGraphInstantiateWithFlags", ctypes.byref(executable), graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)
        return executable.value or 0

    def launch(self, executable: int, stream: int) -> None:
        """Does what was recorded."""
        self._call("cudaGraphLaunch", executable, stream)

    def destroy_graph(self, executable: int) -> None:
        """Gives back what `end_capture` gave."""
        self._call("cudaGraphExecDestroy", executable)

    def memory(self) -> tuple[int, int]:
        """Bytes free, and in all. On Jetson this is the machine's memory."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def _call(self, function: str, *arguments: Any, what: str = "") -> None:
        code = getattr(self._library, function)(*arguments)
        if code == 0:
            return
        text = _text(self._library, code)
        self._library.cudaGetLastError()  # forgets it: the next call must not report this one's error
        if code == _OUT_OF_MEMORY:
            raise DeviceMemoryError(
                f"the GPU has no memory left{f' for {what}' if what else ''} ({function}: {text}); close "
                "other programs that use it, keep fewer frames and sessions, or use a smaller bundle"
            )
        if code in _LOST:
            raise DeviceLost(
                f"the GPU cannot be used: {_LOST[code]} ({function}: {text}); check nvidia-smi or dmesg and "
                "start this process again"
            )
        raise EngineError(f"{function} failed: {text}")


def _declare(library: Any) -> None:
    for name, arguments in _FUNCTIONS.items():
        try:
            function = getattr(library, name)
        except AttributeError:
            raise EngineError(f"the CUDA runtime lacks {name}; CUDA 11.4 or newer is needed") from None
        function.argtypes, function.restype = arguments, _INT


def _text(library: Any, code: int) -> str:
    try:
        function = library.cudaGetErrorString
        function.restype, function.argtypes = ctypes.c_char_p, (_INT,)
        return f"{function(code).decode()} (error {code})"
    except AttributeError:
        return f"error {code}"


def candidates() -> Iterator[str]:
    """Where a CUDA runtime may be: NVIDIA's own wheels, the loader's path, the toolkit's places."""
    site = Path(sysconfig.get_paths()["purelib"], "nvidia")
    for folder in ("cu13/lib", "cuda_runtime/lib"):
        yield from sorted(map(str, (site / folder).glob("libcudart.so.*")), reverse=True)
    yield from _NAMES
    for folder in ("lib64", "targets/aarch64-linux/lib", "targets/x86_64-linux/lib"):
        yield from (str(Path("/usr/local/cuda", folder, name)) for name in _NAMES)


def _open() -> Any:
    failures = []
    for name in candidates():
        try:
            library = ctypes.CDLL(name)
            _declare(library)
        except OSError:
            continue
        except EngineError as error:
            failures.append(f"{name}: {error}")
            continue
        count = ctypes.c_int()
        code = library.cudaGetDeviceCount(ctypes.byref(count))
        if code == 0 and count.value:
            return library
        failures.append(f"{name}: {_text(library, code) if code else 'no GPU'}")
    if failures:
        raise DeviceLost(f"no CUDA runtime can use a GPU here: {'; '.join(failures)}")
    raise EngineError(
        "libcudart was not found; install CUDA's runtime (on Jetson it comes with JetPack; elsewhere "
        "`pip install nvidia-cuda-runtime-cu12`), or add its folder to LD_LIBRARY_PATH"
    )
