# SPDX-License-Identifier: Apache-2.0
"""The model at work: the bundle that answers now, and the one thread that runs it."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from mobilevlm_ros.engine.runtime import Runtime, load_runtime
from mobilevlm_ros.errors import ConfigurationError
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.cache.sessions import SessionLimits, SessionStore
from mobilevlm_ros.inference.prompt.presets import Preset, load_presets, system_prompt
from mobilevlm_ros.inference.scheduler import Scheduler
from mobilevlm_ros.nodes.parameters.table import LONGEST_QUESTION
from mobilevlm_ros.ros.resources import shared_file


@dataclass(frozen=True)
class LiveSettings:
    """Settings that may change while a bundle answers; the fields are parameters of the node."""

    system_prompt: str
    preset: str
    sessions_max: int
    session_idle: float
    session_tokens: int
    sessions_mb: int

    @property
    def session_limits(self) -> SessionLimits:
        """As the store of the sessions takes them."""
        return SessionLimits(
            self.sessions_max, self.session_idle, self.session_tokens, self.sessions_mb << 20
        )


@dataclass(frozen=True)
class Settings:
    """What a bundle is loaded with; the fields but the last are parameters of the node."""

    bundle: str
    backend: str
    threads: int
    spin_threads: bool
    prefix_cache_mb: int
    presets_file: str
    live: LiveSettings

    def but(self, bundle: str, backend: str) -> Settings:
        """The same with another bundle and backend, where they are not empty."""
        return replace(self, bundle=bundle or self.bundle, backend=backend or self.backend)


@dataclass(frozen=True)
class LoadedBundle:
    """A bundle that can answer, and the settings it answers with: one immutable value.

    Whoever begins a piece of work takes `ModelManager.loaded` once and keeps it to the end. So no answer is
    half from one model or setting and half from another.

    Attributes:
        settings: it was loaded with; the live ones are those of now.
        assistant: belongs to the inference thread, as do the sessions.
        session_limits: to hand to `sessions.get`.
    """

    settings: Settings
    runtime: Runtime
    assistant: Assistant
    model_id: str
    load_seconds: float
    presets: Mapping[str, Preset]
    sessions: SessionStore
    session_limits: SessionLimits

    def with_live(self, live: LiveSettings) -> LoadedBundle:
        """The same bundle with other live settings; this value stays as it is.

        Raises:
            OptionError: no preset of that name is known.
        """
        prompt = system_prompt(live.system_prompt, live.preset, self.presets)
        return replace(
            self,
            settings=replace(self.settings, live=live),
            assistant=self.assistant.with_system_prompt(prompt),
            session_limits=live.session_limits,
        )


class ModelManager:
    """What `on_configure` makes and `on_cleanup` frees.

    Attributes:
        loaded: the bundle that answers now, with its settings. The executor's thread replaces it as a whole;
            any thread may read it.
        scheduler: of the inference thread; the same for all bundles, so a change of bundle loses no request.
    """

    def __init__(self, loaded: LoadedBundle, queue_size: int) -> None:
        self.loaded = loaded
        self.scheduler = Scheduler(capacity=queue_size)

    @property
    def places(self) -> int:
        """Requests that may wait at a time, for their turn or for a frame: the parameter `queue_size`."""
        return self.scheduler.capacity

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
    live = settings.live
    prompt = system_prompt(live.system_prompt, live.preset, presets)
    runtime = load_runtime(
        settings.bundle or None,
        backend=settings.backend,
        threads=settings.threads,
        spin=settings.spin_threads,
    )
    # Questions were checked against the live parameter before they get here; this is only its upper bound.
    assistant = Assistant(
        runtime,
        prefix_budget=settings.prefix_cache_mb << 20,
        max_question=LONGEST_QUESTION,
        system_prompt=prompt,
    )
    limits = live.session_limits
    release_memory()  # the files' content, of which ONNX Runtime has taken copies
    return LoadedBundle(
        settings,
        runtime,
        assistant,
        runtime.bundle.manifest.model_id,
        perf_counter() - start,
        presets,
        SessionStore(limits),
        limits,
    )


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
