# SPDX-License-Identifier: Apache-2.0
"""Ends the requests whose client has left the graph: nobody waits for their answers."""

from __future__ import annotations

from collections.abc import Iterable

from rclpy.node import Node

from mobilevlm_ros.nodes.services.pending_question import RequestContext


class ClientWatch:
    """Looks who can have sent each request, and cancels it when all of those have gone.

    ROS does not tell a server who sent a request. So those that may have sent it are all clients that were in
    the graph when it was first looked at, and still are. A client that is killed stays in the graph until its
    lease ends (20 s with Fast DDS).

    Args:
        node: of the servers.
        service, action: their names, relative.
    """

    def __init__(self, node: Node, service: str, action: str) -> None:
        self._node = node
        # DDS's names for the topics of requests; another middleware has none, and nothing is cancelled then.
        self._service = f"rq{node.resolve_service_name(service)}Request"
        self._action = f"rq{node.resolve_topic_name(action)}/_action/send_goalRequest"

    def look(self, contexts: Iterable[RequestContext]) -> None:
        """Cancel what nobody waits for: at the second look without its client, at the earliest."""
        if not self._node.get_subscriptions_info_by_topic(self._service, no_mangle=True):
            return  # not even our own end is known by this name
        now = {topic: self._clients(topic) for topic in (self._service, self._action)}
        for context in contexts:
            clients = now[self._service if context.goal is None else self._action]
            if context.clients is None:
                context.clients = clients
                continue
            context.clients = context.clients & clients if context.clients else clients
            if not context.clients and not context.cancelled:
                self._node.get_logger().info("a question ends, because its client has left")
                context.cancel()

    def _clients(self, topic: str) -> frozenset[bytes]:
        found = self._node.get_publishers_info_by_topic(topic, no_mangle=True)
        return frozenset(bytes(info.endpoint_gid) for info in found)
