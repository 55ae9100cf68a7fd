# SPDX-License-Identifier: Apache-2.0
"""The half of the stand-in that runs plans: engines, contexts, and what a stream records. See stand_in."""

from __future__ import annotations

import ctypes
import enum
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

HOOK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Severity(enum.Enum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class ILogger:
    Severity = Severity

    def __init__(self) -> None:
        self.ready = True


class Recorder:
    """What is put into a stream while it is recorded; knows which graph holds what."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        self.pending: list[Any] = []
        self.graphs: dict[int, list[Any]] = {}
        self.launches = 0
        self._hooks = [HOOK(self._begin), HOOK(self._end), HOOK(self._launch)]  # ctypes keeps no reference
        library.stand_in_hooks(*self._hooks)

    @property
    def recording(self) -> bool:
        return bool(self.library.stand_in_capturing())

    def _begin(self, stream: int) -> None:
        self.pending = []

    def _end(self, graph: int) -> None:
        self.graphs[graph] = self.pending

    def _launch(self, graph: int) -> None:
        self.launches += 1
        for work in self.graphs[graph]:
            work()


class Runtime:
    def __init__(self, trt: Any, logger: ILogger) -> None:
        self._trt, self._logger = trt, logger

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        if self._trt.refuse_plans:
            self._trt.refuse_plans -= 1
            self._logger.log(Severity.ERROR, "the plan is not for this machine")
            return None
        return Engine(self._trt, self._logger, json.loads(plan))


class Engine:
    def __init__(self, trt: Any, logger: ILogger, plan: dict[str, Any]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        # The 16-bit products of the graph itself, not 8-bit ones.
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
        self.session = onnxruntime.InferenceSession(Path(plan["onnx"]), options)
        self.trt, self.logger, self.profiles = trt, logger, plan["profiles"]
        self.inputs = {value.name: value for value in self.session.get_inputs()}
        self.outputs = [value.name for value in self.session.get_outputs()]
        self.num_io_tensors = len(self.inputs) + len(self.outputs)

    def get_tensor_name(self, index: int) -> str:
        return [*self.inputs, *self.outputs][index]

    def create_execution_context(self) -> Context:
        return Context(self)


_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
}


class Context:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._profile = -1
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._ran_plainly = False

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self._profile = profile_index
        return profile_index < len(self._engine.profiles)

    def set_input_shape(self, name: str, shape: Any) -> bool:
        least, greatest = self._engine.profiles[self._profile][name]
        if not all(a <= b <= c for a, b, c in zip(least, shape, greatest)):
            self._refuse(f"{name}: {shape} is not between {least} and {greatest}")
            return False
        if self._shapes.get(name) != tuple(shape):
            self._shapes[name], self._ran_plainly = tuple(shape), False
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if memory % 2 or not memory:
            self._refuse(f"{name}: bad address {memory}")
            return False
        if self._addresses.get(name) != memory:
            self._addresses[name], self._ran_plainly = memory, False
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        engine = self._engine
        missing = {*engine.inputs, *engine.outputs} - set(self._addresses)
        if stream_handle == 0 or missing or set(self._shapes) != set(engine.inputs):
            self._refuse(f"stream {stream_handle}, no address of {missing}")
            return False
        shapes, addresses = dict(self._shapes), dict(self._addresses)
        if engine.trt.recorder.recording:
            if engine.trt.cannot_record or not self._ran_plainly:
                self._refuse("run once before recording")
                return False
            engine.trt.recorder.pending.append(lambda: self._compute(shapes, addresses))
        else:
            self._ran_plainly = True
            self._compute(shapes, addresses)
        return True

    def _compute(self, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int]) -> None:
        engine = self._engine
        feeds = {
            name: view(addresses[name], shapes[name], _TYPES[value.type]).copy()
            for name, value in engine.inputs.items()
        }
        for name, result in zip(engine.outputs, engine.session.run(engine.outputs, feeds)):
            view(addresses[name], result.shape, result.dtype)[...] = result

    def _refuse(self, message: str) -> None:
        self._engine.logger.log(Severity.ERROR, message)


def view(address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """The memory at an address as an array."""
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address)).view(dtype).reshape(shape)
