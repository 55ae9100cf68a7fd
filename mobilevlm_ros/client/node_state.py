# SPDX-License-Identifier: Apache-2.0
"""Whether a running node can answer: its lifecycle state, asked without a question to the model."""

from __future__ import annotations

from lifecycle_msgs.srv import GetState

from mobilevlm_ros.client.own_node import OwnNode
from mobilevlm_ros.errors import RequestTimeout


def lifecycle_state(node: str = "mobilevlm", timeout: float = 5.0) -> str:
    """Label of the node's state as `ros2 lifecycle get` prints it: 'active' when it answers questions.

    Args:
        node: the node's name, with its namespace where it has one (`/left/mobilevlm`).
        timeout: seconds to find the node, and again for its response.

    Raises:
        RequestTimeout: there is no such node, or it does not respond.
    """
    name = f"{node.rstrip('/')}/get_state"
    own = OwnNode("mobilevlm_checks", None)
    try:
        client = own.node.create_client(GetState, name)
        if not client.wait_for_service(timeout):
            raise RequestTimeout(
                f"no node serves {name}: it does not run, has another name or namespace, or another "
                "ROS_DOMAIN_ID or discovery range"
            )
        future = client.call_async(GetState.Request())
        own.executor.spin_until_future_complete(future, timeout)
        response = future.result()
        if response is None:
            raise RequestTimeout(f"{node} did not respond within {timeout:g} s: it hangs, or loads a bundle")
        return str(response.current_state.label)
    finally:
        own.close()
