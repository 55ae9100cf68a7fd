# SPDX-License-Identifier: Apache-2.0
"""Clients of the node for programs; needs ROS 2 and mobilevlm_msgs.

from mobilevlm_ros.client import AskImageClient

with AskImageClient() as client:
    print(client.ask("Is the door open?", choices=["yes", "no"]).answer)
"""

from mobilevlm_ros.nodes.client import AskImageClient
from mobilevlm_ros.nodes.client_async import AsyncAskImageClient, Stream
from mobilevlm_ros.nodes.client_text import as_dict, as_text

__all__ = ["AskImageClient", "AsyncAskImageClient", "Stream", "as_dict", "as_text"]
