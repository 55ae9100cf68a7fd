# SPDX-License-Identifier: Apache-2.0
"""The `~/reload_bundle` service: another bundle takes over while the node goes on answering."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

from mobilevlm_msgs.msg import Status
from mobilevlm_msgs.srv import ReloadBundle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.task import Future

from mobilevlm_ros.errors import EngineError, MobileVLMError, contained
from mobilevlm_ros.files.small_file import expanded
from mobilevlm_ros.nodes.live_settings import read_settings
from mobilevlm_ros.nodes.model_manager import LoadedBundle, Settings, load_bundle, release_memory
from mobilevlm_ros.nodes.node_state import NodeState
from mobilevlm_ros.nodes.parameters.allowed_paths import AllowedPaths
from mobilevlm_ros.nodes.self_test import self_test
from mobilevlm_ros.ros.status import Refused, status_of

MEMORY_FACTOR = 2.0
"""Resident bytes of a served bundle over the bytes of its files: 1.6 to 2.0 was measured
(benchmarks/results/full_size.md)."""


class Reloader:
    """Loads a bundle on a thread of its own, tests it there, and lets it take over between two pieces of
    work. Whatever runs at that moment ends with the old bundle; what waits is answered by the new one.

    Everything but the loading runs on the executor's thread.

    Args:
        on_swapped: called with the settings of the bundle that took over.
    """

    def __init__(self, node: Node, node_state: NodeState, on_swapped: Callable[[Settings], None]) -> None:
        self._node = node
        self._node_state = node_state
        self._on_swapped = on_swapped
        self._loading = ""  # what is being loaded now
        self._service = node.create_service(
            ReloadBundle, "~/reload_bundle", self._on_request, callback_group=ReentrantCallbackGroup()
        )

    async def _on_request(
        self, request: ReloadBundle.Request, response: ReloadBundle.Response
    ) -> ReloadBundle.Response:
        start = monotonic()
        try:
            await self._reload(request.bundle, request.backend)
            response.status = Status(code=Status.OK)
        except Exception as error:  # becomes the status
            response.status = status_of(error)
            detail = "" if isinstance(error, MobileVLMError) else f"\n{traceback.format_exc()}"
            self._node.get_logger().error(f"the bundle stays as it is: {error}{detail}")
        if self._node_state.model is not None:
            loaded = self._node_state.model.loaded
            response.bundle = str(loaded.runtime.bundle.path)
            response.model_id = loaded.model_id
            response.backend = loaded.runtime.backend_name
        response.duration = monotonic() - start
        return response

    async def _reload(self, bundle: str, backend: str) -> None:
        model = self._node_state.model
        if model is None:
            raise Refused(
                Status.NOT_ACTIVE,
                "there is no bundle to replace: set the parameter `bundle`, then run `ros2 lifecycle set "
                "<node> configure`",
            )
        if self._loading:
            raise Refused(Status.BUSY, f"{self._loading} is being loaded: wait until it is done")
        allowed = AllowedPaths(self._node.get_parameter("allowed_paths").value, ())
        if refusal := allowed.refusal("bundle", bundle):
            raise Refused(Status.INVALID_PARAMETER, refusal)
        settings = read_settings(self._node).but(expanded(bundle), backend)
        self._loading = settings.bundle or "the bundle of the package"
        self._node.get_logger().info(f"loading {self._loading} beside {model.loaded.model_id}")
        test = self._node.get_parameter("self_test").value
        try:
            loaded = await self._on_thread(lambda: _load(settings, test))
            if self._node_state.model is not model:
                raise Refused(
                    Status.NOT_ACTIVE,
                    f"the node was cleaned up while {self._loading} was loaded: set the parameter `bundle`, "
                    "then configure the node",
                )
            before = model.loaded.model_id
            # Live parameters may have changed while it was loaded.
            model.loaded = loaded.with_live(read_settings(self._node).live)
            self._on_swapped(settings)
            self._node.get_logger().info(f"{loaded.model_id} answers from now on, instead of {before}")
        finally:
            self._loading = ""
            release_memory()

    async def _on_thread(self, make: Callable[[], LoadedBundle]) -> LoadedBundle:
        done: Future = Future()

        def run() -> None:
            try:
                made: Any = make()
            except BaseException as error:  # a native library's panic is none of Exception's kind
                made = contained(error)
            done.set_result(made)
            executor = self._node.executor
            if executor is not None:
                executor.wake()  # one that waits does not look at futures by itself

        threading.Thread(target=run, name="reload", daemon=True).start()
        outcome: LoadedBundle | Exception = await done
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def _load(settings: Settings, test: bool) -> LoadedBundle:
    check_memory(settings.bundle, available_memory())
    try:
        loaded = load_bundle(settings)
        if test:
            self_test(loaded.assistant)
    except MemoryError as error:
        raise EngineError(
            f"{settings.bundle} does not fit into memory beside the running one: {_ADVICE}"
        ) from error
    return loaded


def check_memory(bundle: str, available: int | None) -> None:
    """Raises EngineError when a bundle will not fit into `available` bytes (None: not known).

    A process that runs out of memory is killed by the system, and the old bundle with it.
    """
    if not bundle or available is None:
        return
    try:
        size = sum(file.stat().st_size for file in Path(bundle).iterdir() if file.is_file())
    except OSError:
        return  # loading says what is wrong with it
    needed = int(size * MEMORY_FACTOR)
    if needed > available:
        raise EngineError(
            f"{bundle} takes about {needed / 1e9:.2g} GB of memory beside the running one, and "
            f"{available / 1e9:.2g} GB are free: {_ADVICE}"
        )


def available_memory(proc: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that this process may still take: of the machine, and of its container; None where the system
    does not tell.
    """
    free = []
    try:
        lines = dict(line.split(":", 1) for line in proc.read_text().splitlines())
        free.append(int(lines["MemAvailable"].split()[0]) * 1024)
    except (OSError, KeyError, ValueError):
        pass
    try:
        limit = int((cgroup / "memory.max").read_text())  # 'max' without a limit
        used = int((cgroup / "memory.current").read_text())
        # The page cache counts as used, but gives way.
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        free.append(max(0, limit - used + int(stat["inactive_file"])))
    except (OSError, KeyError, ValueError):
        pass
    return min(free, default=None)


_ADVICE = (
    "deactivate and clean up the node, set its parameter `bundle`, and configure it again; that frees the "
    "old one first"
)
