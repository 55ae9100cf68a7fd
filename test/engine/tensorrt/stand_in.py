# SPDX-License-Identifier: Apache-2.0
"""A TensorRT without a GPU: it has the API's shape and rules, and computes with ONNX Runtime on the CPU.

What it proves: that the backend keeps to the rules of the API (profiles, shapes, addresses, what may be
recorded), and that the graphs, driven in this way, answer right. What it cannot: that TensorRT itself reads
the graphs, is accurate or fast. Here is what builds plans; stand_in_runtime runs them.
"""

from __future__ import annotations

import enum
import json
import types
from typing import Any

import onnxruntime
from stand_in_runtime import ILogger, Recorder, Runtime, Severity


class IProgressMonitor:
    def __init__(self) -> None:
        self.ready = True


class DataType(enum.Enum):
    FLOAT, HALF, INT32 = range(3)


class LayerType(enum.Enum):
    CONSTANT, SHAPE, SOFTMAX, MATRIX_MULTIPLY = range(4)


def make(version: str, recorder: Recorder) -> types.SimpleNamespace:
    """A module `tensorrt` of that version. `log` collects what the backend asked of it."""
    major = int(version.split(".")[0])
    trt = types.SimpleNamespace(
        __version__=version,
        ILogger=ILogger,
        DataType=DataType,
        LayerType=LayerType,
        MemoryPoolType=types.SimpleNamespace(WORKSPACE="workspace"),
        log=[],
        refuse_plans=0,
        cannot_record=False,
        recorder=recorder,
    )
    flags = {"STRONGLY_TYPED": 1} if major >= 10 else {"EXPLICIT_BATCH": 0}
    trt.NetworkDefinitionCreationFlag = types.SimpleNamespace(**flags)
    if major >= 10:
        trt.IProgressMonitor = IProgressMonitor
    else:
        trt.BuilderFlag = types.SimpleNamespace(FP16="fp16", OBEY_PRECISION_CONSTRAINTS="obey")
    trt.Builder = lambda logger: Builder(trt, logger)
    trt.OnnxParser = lambda network, logger: OnnxParser(network)
    trt.Runtime = lambda logger: Runtime(trt, logger)
    return trt


class Tensor:
    def __init__(self, dtype: DataType) -> None:
        self.dtype = dtype


class Layer:
    def __init__(self, kind: LayerType, dtype: DataType) -> None:
        self.type, self.num_outputs, self._output = kind, 1, Tensor(dtype)
        self.precision: Any = None
        self.output_types: dict[int, Any] = {}

    def get_output(self, index: int) -> Tensor:
        return self._output

    def set_output_type(self, index: int, dtype: Any) -> None:
        self.output_types[index] = dtype


class Network:
    def __init__(self, flags: int) -> None:
        self.flags, self.path = flags, ""
        self.layers = [
            Layer(LayerType.SOFTMAX, DataType.FLOAT),
            Layer(LayerType.MATRIX_MULTIPLY, DataType.HALF),
            Layer(LayerType.CONSTANT, DataType.HALF),
            Layer(LayerType.SHAPE, DataType.INT32),
        ]
        self.num_layers = len(self.layers)

    def get_layer(self, index: int) -> Layer:
        return self.layers[index]


class OnnxParser:
    def __init__(self, network: Network) -> None:
        self._network, self.num_errors = network, 0
        self._error = ""

    def parse_from_file(self, model: str) -> bool:
        try:
            onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        except Exception as error:
            self._error, self.num_errors = str(error), 1
            return False
        self._network.path = model
        return True

    def get_error(self, index: int) -> Any:
        return types.SimpleNamespace(desc=lambda: self._error)


class Config:
    def __init__(self) -> None:
        self.flags: list[Any] = []
        self.profiles: list[dict[str, Any]] = []
        self.pools: dict[Any, int] = {}
        self.progress_monitor: Any = None
        self.timing: Any = None

    def set_flag(self, flag: Any) -> None:
        self.flags.append(flag)

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self.pools[pool] = pool_size

    def add_optimization_profile(self, profile: Any) -> int:
        self.profiles.append(profile.shapes)
        return len(self.profiles) - 1

    def create_timing_cache(self, content: bytes) -> Any:
        return types.SimpleNamespace(content=content, serialize=lambda: b"timing")

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        if cache.content not in (b"", b"timing"):
            return False
        self.timing = cache
        return True

    def get_timing_cache(self) -> Any:
        return self.timing


class Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, Any] = {}

    def set_shape(self, name: str, least: Any, best: Any, greatest: Any) -> None:
        assert len(least) == len(best) == len(greatest), name
        assert all(a <= b <= c for a, b, c in zip(least, best, greatest)), (name, least, best, greatest)
        self.shapes[name] = (list(least), list(greatest))


class Builder:
    def __init__(self, trt: Any, logger: ILogger) -> None:
        assert logger.ready
        self._trt, self._logger = trt, logger

    def create_network(self, flags: int) -> Network:
        return Network(flags)

    def create_builder_config(self) -> Config:
        return Config()

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
        self._trt.log.append((network, config))
        session = onnxruntime.InferenceSession(network.path, providers=["CPUExecutionProvider"])
        inputs = {value.name for value in session.get_inputs()}
        for profile in config.profiles:
            if set(profile) != inputs:
                self._logger.log(Severity.ERROR, f"no ranges for {inputs ^ set(profile)}")
                return None
        if config.progress_monitor is not None:
            config.progress_monitor.phase_start("Tactics", None, 1)
            assert config.progress_monitor.step_complete("Tactics", 0)
            config.progress_monitor.phase_finish("Tactics")
        return json.dumps({"onnx": network.path, "profiles": config.profiles}).encode()
