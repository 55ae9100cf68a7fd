# SPDX-License-Identifier: Apache-2.0
"""Notices another node of the same name, whose answers and topics mix with this one's."""

from __future__ import annotations

from rclpy.node import Node

PATIENCE = 30
"""Looks in a row, one a second: a node that was killed stays in the graph until its lease ends (20 s with
Fast DDS), and its successor is no second one.
"""


class NameWatch:
    """Warns once, and again when another one comes after the first has gone."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._seen = 0

    def look(self) -> None:
        """Call it about once a second."""
        name, namespace = self._node.get_name(), self._node.get_namespace()
        if self._node.get_node_names_and_namespaces().count((name, namespace)) < 2:
            self._seen = 0
            return
        self._seen += 1
        if self._seen == PATIENCE:
            self._node.get_logger().warning(
                f"another node is called {self._node.get_fully_qualified_name()} too: answers and topics of "
                "the two mix; give each a name or namespace of its own (-r __node:=NAME, -r __ns:=/NAMESPACE)"
            )
