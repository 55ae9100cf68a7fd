# SPDX-License-Identifier: Apache-2.0
"""Runs a node until SIGINT or SIGTERM, and ends cleanly however often they come."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from time import monotonic
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from mobilevlm_ros.ros.node_arguments import check_arguments, nearest, undeclared
from mobilevlm_ros.ros.watchdog import Watchdog

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h

SHUTDOWN_GRACE = 0.3
"""Seconds in which those who still wait for an answer are told that there will be none."""

DELIVERY = 0.05
"""Seconds for the results of goals, each of which is sent by a task of its own."""

END_TIMEOUT = 1.5
"""Seconds from a signal to the end of the process, whatever goes on: who sent it may kill us soon after."""


LONGEST_LOG = 8000
"""Characters of a traceback in the log; an error may quote what a client sent."""


@runtime_checkable
class Supervised(Protocol):
    """A node with threads of its own, and with callers that wait.

    Attributes:
        busy: whether somebody waits for a response.
        callback_faults: callbacks that ended with an error; `run` counts them.
        hang_timeout: seconds without progress that are taken for a hang; 0 = never.
        stuck_seconds: how long the work of its threads has made no progress.
        in_transition: whether a lifecycle transition runs, which may take as long as it likes.
    """

    callback_faults: int

    @property
    def busy(self) -> bool: ...

    @property
    def hang_timeout(self) -> float: ...

    @property
    def stuck_seconds(self) -> float: ...

    @property
    def in_transition(self) -> bool: ...

    def close(self, timeout: float) -> bool:
        """End the threads; whether they ended within `timeout` seconds."""


def run(
    make_node: Callable[[], Node],
    args: list[str] | None = None,
    parameters: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Make a node and spin it in this thread; the exit code is 0 after a signal or a shutdown of the context,
    1 where the node cannot be made, 70 where it hung.

    Arguments that no node knows end it with 2, and so do parameters that are not in `parameters` (what each
    means; empty: any). Those of a file that the node does not declare are warned of by name: the file may be
    for several nodes.

    Where the node is `Supervised`, its threads are ended too, and a watchdog ends a process that hangs.

    A signal only wakes a thread that asks the executor to stop: nothing is interrupted half way, and a second
    Ctrl-C (a launch system and the terminal both send one) changes nothing.
    """
    argv = list(sys.argv if args is None else [sys.argv[0], *args])
    refused = check_arguments(argv, parameters)
    if refused is not None:
        return refused
    _keep_buffers()
    logging.basicConfig(level=logging.INFO, format="[%(levelname)s] [%(name)s]: %(message)s")
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:
        print(f"cannot start: {_init_trouble(str(error))}", file=sys.stderr)
        return 1
    executor = SingleThreadedExecutor()
    stop, ended = threading.Event(), threading.Event()

    def end() -> None:
        executor.create_task(stop.set)
        if not ended.wait(END_TIMEOUT):
            # In the middle of loading a bundle, or of a long step; nothing that holds outlives the process.
            _exit_now()

    _on_signal(end)
    try:
        node = make_node()
    except BaseException as error:  # a native library's panic is none of Exception's kind
        print(f"cannot start: {str(error) or type(error).__name__}", file=sys.stderr)
        rclpy.try_shutdown()
        ended.set()
        return 1
    declared = getattr(node, "_parameters", {})
    for name in undeclared(getattr(node, "_parameter_overrides", {}), declared):
        hint = nearest(name, declared)
        node.get_logger().warning(f"there is no parameter {name!r}{hint}: it is ignored")
    executor.add_node(node)
    watchdog = _watch(executor, node) if isinstance(node, Supervised) else None
    while not stop.is_set() and _serve(executor, node):
        pass
    if watchdog is not None:
        watchdog.stop()
        watchdog = None
    idle = node.close(1.0) if isinstance(node, Supervised) else True
    _serve_last_answers(executor, node)
    # Others see a node until its last reference is gone: the executor has some, and its entities refer to it
    # and it to them. One that only the end of the process takes away stays in their graph for another 20 s
    # (Fast DDS's lease), and gets requests that were meant for its successor.
    executor.shutdown()
    node.destroy_node()
    del node
    gc.collect()
    rclpy.try_shutdown()
    for number in SIGNALS:  # one that comes while the interpreter ends must not change the exit code
        signal.signal(number, signal.SIG_IGN)
    ended.set()
    if not idle:
        _exit_now()  # the engine is still in the middle of a long step, which would hold up the interpreter
    return 0


def _serve(executor: SingleThreadedExecutor, node: Node, timeout: float | None = None) -> bool:
    """Run one callback, waiting for it up to `timeout` seconds; False once the context is shut down."""
    try:
        executor.spin_once(timeout_sec=timeout)
    except ExternalShutdownException:
        return False
    except BaseException:  # one bad message must not end the node; only a signal does, which raises nothing
        if isinstance(node, Supervised):
            node.callback_faults += 1
        node.get_logger().error(f"a callback failed:\n{traceback.format_exc()[-LONGEST_LOG:]}")
    return rclpy.ok()


def _watch(executor: SingleThreadedExecutor, node: Supervised) -> Watchdog:
    return Watchdog(
        executor, lambda: node.hang_timeout, lambda: node.stuck_seconds, lambda: node.in_transition
    )


def _init_trouble(text: str) -> str:
    """Why ROS cannot be initialised, and what to do."""
    text = text.removeprefix("failed to initialize rcl: ")
    if "SECURITY" in text or os.environ.get("ROS_SECURITY_ENABLE", "").lower() == "true":
        return (
            f"ROS security is switched on, and its files cannot be used ({text}): make the enclave with "
            "`ros2 security create_enclave`, check ROS_SECURITY_KEYSTORE and the argument --enclave, or set "
            "ROS_SECURITY_ENABLE=false"
        )
    return text


def _serve_last_answers(executor: SingleThreadedExecutor, node: Node) -> None:
    """Serve until nobody waits for an answer any more, at most SHUTDOWN_GRACE seconds."""
    if not isinstance(node, Supervised) or not node.busy:
        return
    end = monotonic() + SHUTDOWN_GRACE
    while node.busy and monotonic() < end and _serve(executor, node, 0.05):
        pass
    end = monotonic() + DELIVERY
    while (rest := end - monotonic()) > 0 and _serve(executor, node, rest):
        pass


def _keep_buffers() -> None:
    """Let glibc reuse the memory of images instead of mapping fresh pages for each one: taking a raw 720p
    image costs a few times less. What a dropped bundle held still goes back, see `model.release_memory`.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the greatest that glibc takes
        mallopt(_M_TRIM_THRESHOLD, 64 << 20)


def _exit_now() -> None:
    """End the process without waiting for any thread."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _on_signal(action: Callable[[], object]) -> None:
    """Call `action` once, on a thread of its own, when a signal comes.

    Python runs signal handlers on the main thread between two byte codes, and that thread sleeps inside the
    middleware. The wakeup descriptor is written at once, by the handler in C.
    """
    receiving, sending = os.pipe()
    os.set_blocking(sending, False)
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(sending, warn_on_full_buffer=False)

    def wait() -> None:
        os.read(receiving, 1)
        action()

    threading.Thread(target=wait, name="signals", daemon=True).start()
