# SPDX-License-Identifier: Apache-2.0
"""The part of TensorRT's Python API that this backend uses, by TensorRT's own class names.

TensorRT ships no annotations that type checkers accept. A test compares every member here with the real
bindings of each supported version; SINCE and UNTIL list what only some of them have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

SINCE: dict[str, tuple[int, int]] = {
    "IBuilderConfig.progress_monitor": (10, 0),
    "IBuilderConfig.builder_optimization_level": (8, 6),
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": (10, 0),
    "IProgressMonitor": (10, 0),
}
"""Members to the first version (major, minor) that has them; where none is given, 8.5."""
UNTIL: dict[str, tuple[int, int]] = {
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH": (11, 0),
    "BuilderFlag.FP16": (11, 0),
    "BuilderFlag.OBEY_PRECISION_CONSTRAINTS": (11, 0),
    "ILayer.precision": (11, 0),
    "ILayer.set_output_type": (11, 0),
}
"""Members to the first version that no longer has them."""


class ITensor(Protocol):
    """A tensor of a network that is being defined."""

    dtype: Any


class ILayer(Protocol):
    """One operation of a network."""

    type: Any
    num_outputs: int
    precision: Any

    def get_output(self, index: int) -> ITensor: ...
    def set_output_type(self, index: int, dtype: Any) -> None: ...


class INetworkDefinition(Protocol):
    """What a parser fills."""

    num_layers: int

    def get_layer(self, index: int) -> ILayer: ...


class IOptimizationProfile(Protocol):
    """Ranges of the inputs' shapes."""

    def set_shape(self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]) -> None: ...


class ITimingCache(Protocol):
    """What measuring kernels taught earlier builds."""

    def serialize(self) -> Any: ...


class IBuilderConfig(Protocol):
    """How to build."""

    progress_monitor: Any
    builder_optimization_level: int

    def set_flag(self, flag: Any) -> None: ...
    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None: ...
    def add_optimization_profile(self, profile: IOptimizationProfile) -> int: ...
    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None: ...
    def set_timing_cache(self, cache: ITimingCache | None, ignore_mismatch: bool) -> bool: ...
    def get_timing_cache(self) -> ITimingCache | None: ...


class Builder(Protocol):
    """Makes plans."""

    def create_network(self, flags: int) -> INetworkDefinition: ...
    def create_builder_config(self) -> IBuilderConfig: ...
    def create_optimization_profile(self) -> IOptimizationProfile: ...
    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> Any: ...


class ParserError(Protocol):
    """One thing a parser did not like."""

    def desc(self) -> str: ...


class OnnxParser(Protocol):
    """Reads ONNX into a network."""

    num_errors: int

    def parse_from_file(self, model: str) -> bool: ...
    def get_error(self, index: int) -> ParserError: ...


class IExecutionContext(Protocol):
    """A run of an engine: shapes, addresses and intermediate memory."""

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool: ...
    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool: ...
    def set_tensor_address(self, name: str, memory: int) -> bool: ...
    def execute_async_v3(self, stream_handle: int) -> bool: ...


class ICudaEngine(Protocol):
    """A plan that is loaded."""

    num_io_tensors: int

    def get_tensor_name(self, index: int) -> str: ...
    def create_execution_context(self) -> IExecutionContext | None: ...


class Runtime(Protocol):
    """Loads plans."""

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None: ...
