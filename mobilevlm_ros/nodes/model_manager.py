# SPDX-License-Identifier: Apache-2.0
"""The model at work: the bundle that answers now, and the one thread that runs it."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from rclpy.node import Node

from mobilevlm_ros.engine.runtime import Runtime, load_runtime
from mobilevlm_ros.errors import ConfigurationError
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.cache.sessions import SessionStore
from mobilevlm_ros.inference.prompt.presets import Preset, load_presets, system_prompt
from mobilevlm_ros.inference.scheduler import Scheduler
from mobilevlm_ros.nodes.parameters.table import LONGEST_QUESTION
from mobilevlm_ros.ros.resources import shared_file


@dataclass(frozen=True)
class Settings:
    """What a bundle is loaded with; the fields are parameters of the node."""

    bundle: str
    backend: str
    threads: int
    spin_threads: bool
    prefix_cache_mb: int
    system_prompt: str
    preset: str
    presets_file: str
    sessions_max: int
    session_idle: float
    session_tokens: int
    sessions_mb: int

    @classmethod
    def of(cls, node: Node) -> Settings:
        """As the node's parameters say."""
        return cls(**{name: node.get_parameter(name).value for name in cls.__dataclass_fields__})

    def but(self, bundle: str, backend: str) -> Settings:
        """The same with another bundle and backend, where they are not empty."""
        return replace(self, bundle=bundle or self.bundle, backend=backend or self.backend)


@dataclass(frozen=True)
class LoadedBundle:
    """A bundle that can answer. Whoever begins a piece of work takes `Model.loaded` once and keeps it to the
    end, so no answer is half from one model and half from another.
    """

    settings: Settings
    runtime: Runtime
    assistant: Assistant
    model_id: str
    load_seconds: float
    presets: Mapping[str, Preset]
    sessions: SessionStore


class ModelManager:
    """What `on_configure` makes and `on_cleanup` frees.

    Attributes:
        loaded: the bundle that answers now. `reload_bundle` replaces it as a whole, from the executor's
            thread.
        worker: the inference thread; the same for all bundles, so a change of bundle loses no request.
    """

    def __init__(self, loaded: LoadedBundle, queue_size: int) -> None:
        self.loaded = loaded
        self.scheduler = Scheduler(capacity=queue_size)

    @property
    def model_id(self) -> str:
        """Of the bundle that answers now."""
        return self.loaded.model_id

    @property
    def runtime(self) -> Runtime:
        """Of the bundle that answers now."""
        return self.loaded.runtime

    @property
    def assistant(self) -> Assistant:
        """Of the bundle that answers now."""
        return self.loaded.assistant

    def close(self, timeout: float | None = None) -> bool:
        """End all work (each request gets CANCELLED); True if the inference thread ended within `timeout`
        seconds.
        """
        return self.scheduler.close(timeout)


def load_bundle(settings: Settings) -> LoadedBundle:
    """Load a bundle; may run on any thread.

    Raises:
        BundleError, EngineError, ConfigurationError, OptionError: with the reason and what to do.
    """
    start = perf_counter()
    presets = load_presets(settings.presets_file or _shipped_presets())
    prompt = system_prompt(settings.system_prompt, settings.preset, presets)
    runtime = load_runtime(
        settings.bundle or None,
        backend=settings.backend,
        threads=settings.threads,
        spin=settings.spin_threads,
    )
    # Questions were checked against the live parameter before they get here; this is only its upper bound.
    assistant = Assistant(
        runtime, prefix_budget=settings.prefix_cache_mb << 20, max_question=LONGEST_QUESTION
    )
    assistant.system_prompt = prompt
    sessions = SessionStore(
        settings.sessions_max, settings.session_idle, settings.session_tokens, settings.sessions_mb << 20
    )
    seconds = perf_counter() - start
    return LoadedBundle(settings, runtime, assistant, model_id(runtime), seconds, presets, sessions)


def model_id(runtime: Runtime) -> str:
    """Name and content hash of a bundle: its manifest holds the sha256 of each file, so its own hash covers
    all.
    """
    manifest = runtime.bundle.manifest
    digest = hashlib.sha256(manifest.to_json().encode()).hexdigest()
    return f"{manifest.name}@{digest[:12]}"


def _shipped_presets() -> Path:
    path = shared_file("config", "presets.yaml")
    if path is None:
        raise ConfigurationError("config/presets.yaml of the package is missing: install it again")
    return path


def release_memory() -> None:
    """Hand what a dropped bundle occupied back to the operating system, which glibc does not do by itself."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)
