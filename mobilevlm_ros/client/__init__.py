# SPDX-License-Identifier: Apache-2.0
"""Clients of the node for programs; needs ROS 2 and mobilevlm_msgs.

from mobilevlm_ros.client import AskImageClient

with AskImageClient() as client:
    print(client.ask("Is the door open?", choices=["yes", "no"]).answer)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mobilevlm_ros.client.async_client import AsyncAskImageClient, Stream
    from mobilevlm_ros.client.client import AskImageClient
    from mobilevlm_ros.client.formatting import as_dict, as_text

__all__ = ["AskImageClient", "AsyncAskImageClient", "Stream", "as_dict", "as_text"]


def __getattr__(name: str) -> Any:
    """Imports a client when it is asked for: `client.options` is used where there is no ROS."""
    if name == "AskImageClient":
        from mobilevlm_ros.client.client import AskImageClient

        return AskImageClient
    if name in ("AsyncAskImageClient", "Stream"):
        from mobilevlm_ros.client import async_client

        return getattr(async_client, name)
    if name in ("as_dict", "as_text"):
        from mobilevlm_ros.client import formatting

        return getattr(formatting, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
