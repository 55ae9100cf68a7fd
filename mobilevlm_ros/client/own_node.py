# SPDX-License-Identifier: Apache-2.0
"""A client's own ROS: it works in any program, whatever else that does with ROS."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from typing import Protocol

import rclpy
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor


class Destroyable(Protocol):
    """What has to go before its node does, such as an action's client."""

    def destroy(self) -> None:
        """Leave the ROS graph."""


class OwnNode:
    """A node with a context and an executor of its own.

    Attributes:
        context, node, executor: as rclpy has them.

    Args:
        name: of the node.
        args: ROS arguments, e.g. ['--ros-args', '-r', '__ns:=/front'].
    """

    def __init__(self, name: str, args: Sequence[str] | None) -> None:
        self.context = Context()
        rclpy.init(args=list(args or []), context=self.context)
        self.node = rclpy.create_node(name, context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self._thread: threading.Thread | None = None

    @property
    def is_open(self) -> bool:
        """Whether it has not been closed yet."""
        return bool(self.context.ok())

    def start(self) -> None:
        """Serve the node on a thread of its own, until it is closed."""
        self._thread = threading.Thread(target=self._spin, name=self.node.get_name(), daemon=True)
        self._thread.start()

    def close(self, *owned: Destroyable) -> None:
        """Leave the ROS graph; `owned` goes before the node. The second time does nothing."""
        if not self.is_open:
            return
        if self._thread is not None:
            self.context.try_shutdown()
            self._thread.join()
            self.executor.shutdown()
        else:
            self.executor.remove_node(self.node)
        for entity in owned:
            entity.destroy()
        self.node.destroy_node()
        self.context.try_shutdown()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self.executor.spin()
