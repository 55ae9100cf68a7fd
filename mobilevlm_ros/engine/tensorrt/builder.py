# SPDX-License-Identifier: Apache-2.0
"""From an ONNX file to a plan: network, precision, shapes, and how far it has got."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilevlm_ros.engine.tensorrt import api
from mobilevlm_ros.engine.tensorrt.library import Library
from mobilevlm_ros.files.atomic import write_file

logger = logging.getLogger(__name__)

Range = tuple[Sequence[int], Sequence[int], Sequence[int]]
"""Least, best and greatest shape of an input."""

WORKSPACE_BYTES = 1 << 30
"""Memory that a kernel may try while building. More helps little; Orin Nano shares 8 GB with everything."""
_OPTIMIZATION_LEVEL = 3  # TensorRT's default
_SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True)
class Recipe:
    """What to build: the graph and its profiles, one per way of running it."""

    onnx: Path
    profiles: tuple[Mapping[str, Range], ...]
    workspace: int = WORKSPACE_BYTES


def build(library: Library, recipe: Recipe, timing_cache: Path | None = None) -> bytes:
    """The plan of a graph for this GPU. Takes minutes; logs how far it has got.

    `timing_cache` is read and written: the next build of a similar graph is then faster. Raises EngineError.
    """
    trt = library.trt
    started = time.monotonic()
    try:
        builder: api.Builder = trt.Builder(library.logger)
    except TypeError as error:  # what the bindings raise when there is no usable GPU
        hint = f"Is the GPU free, and its driver new enough? ({error})"
        raise library.fail("start its builder", hint) from error
    network = builder.create_network(network_flags(library))
    _parse(library, network, recipe.onnx)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, recipe.workspace)
    if library.version >= (8, 6):
        config.builder_optimization_level = _OPTIMIZATION_LEVEL
    if not library.typed:
        _constrain(library, network, config)
    for ranges in recipe.profiles:
        profile = builder.create_optimization_profile()
        for name, (least, best, greatest) in ranges.items():
            profile.set_shape(name, least, best, greatest)
        config.add_optimization_profile(profile)
    _read_timing(config, timing_cache)
    if library.version >= (10, 0):
        config.progress_monitor = progress_monitor(trt, recipe.onnx.name)
    logger.info(
        "building a TensorRT %s plan of %s; this takes minutes, once per machine",
        library.version_text,
        recipe.onnx.name,
    )
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise library.fail(
            f"build a plan of {recipe.onnx.name}",
            "If it says out of memory: close other programs, add swap, or on Jetson raise CMA (kernel "
            "parameter cma=1G)",
        )
    _write_timing(config, timing_cache)
    logger.info("built the plan of %s in %.0f s", recipe.onnx.name, time.monotonic() - started)
    return bytes(plan)


def network_flags(library: Library) -> int:
    """8: explicit batch must be asked for. 10: so must strong typing. 11: both are the only way."""
    flags = library.trt.NetworkDefinitionCreationFlag
    if library.version >= (11, 0):
        return 0
    if library.typed:
        return 1 << int(flags.STRONGLY_TYPED)
    return 1 << int(flags.EXPLICIT_BATCH)


def _parse(library: Library, network: api.INetworkDefinition, path: Path) -> None:
    parser: api.OnnxParser = library.trt.OnnxParser(network, library.logger)
    if parser.parse_from_file(str(path)):
        return
    library.logger.errors.extend(parser.get_error(i).desc() for i in range(parser.num_errors))
    raise library.fail(f"read {path}", "Build the bundle again with this version of mobilevlm_ros")


def _constrain(library: Library, network: api.INetworkDefinition, config: api.IBuilderConfig) -> None:
    """TensorRT 8: every floating-point layer computes in the type that the graph gives its output.

    Left to itself it would run layer norms and softmax in f16 too, and the encoder's output would be noise.
    """
    trt = library.trt
    config.set_flag(trt.BuilderFlag.FP16)
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    floats = (trt.DataType.FLOAT, trt.DataType.HALF)
    unconstrained = (trt.LayerType.CONSTANT, trt.LayerType.SHAPE)
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        kinds = [layer.get_output(i).dtype for i in range(layer.num_outputs)]
        if layer.type in unconstrained or not kinds or any(kind not in floats for kind in kinds):
            continue
        layer.precision = kinds[0]
        for output, kind in enumerate(kinds):
            layer.set_output_type(output, kind)


def _read_timing(config: api.IBuilderConfig, path: Path | None) -> None:
    if path is None:
        return
    try:
        content = path.read_bytes()
    except OSError:
        content = b""
    # One from another GPU or version is refused.
    if not content or not config.set_timing_cache(config.create_timing_cache(content), False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _write_timing(config: api.IBuilderConfig, path: Path | None) -> None:
    cache = config.get_timing_cache()
    if path is None or cache is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, bytes(cache.serialize()), overwrite=True)
    except OSError as error:  # only the next build would have been faster
        logger.warning("the timing cache %s cannot be written: %s", path, error)


def progress_monitor(trt: Any, name: str) -> Any:
    """An IProgressMonitor that logs a line every few seconds."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.totals: dict[str, int] = {}
            self.latest = time.monotonic()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.totals[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            now = time.monotonic()
            if now - self.latest >= _SECONDS_BETWEEN_LINES:
                self.latest = now
                logger.info("%s: %s, %d of %d", name, phase_name, step, self.totals.get(phase_name, 0))
            return True  # go on

        def phase_finish(self, phase_name: str) -> None:
            self.totals.pop(phase_name, None)

    return Monitor()
