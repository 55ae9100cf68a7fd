# SPDX-License-Identifier: Apache-2.0
"""The executables that need ROS. Without it each says what it needs instead of a traceback."""

from __future__ import annotations

import importlib
import sys

from mobilevlm_ros.arguments import tolerate_any_terminal

ROS_PACKAGES = frozenset(
    [
        "action_msgs",
        "builtin_interfaces",
        "diagnostic_msgs",
        "lifecycle_msgs",
        "mobilevlm_msgs",
        "rcl_interfaces",
        "rclpy",
        "rpyutils",
        "sensor_msgs",
        "std_msgs",
        "std_srvs",
    ]
)


def mobilevlm_node() -> int:
    """Answers questions about its cameras."""
    return _run("mobilevlm_node", "mobilevlm_ros.nodes.mobilevlm_node")


def camera_node() -> int:
    """A simulated camera."""
    return _run("camera_node", "mobilevlm_ros.nodes.camera_node")


def mobilevlm_client() -> int:
    """Asks a running node."""
    return _run("mobilevlm_client", "mobilevlm_ros.client.cli")


def mobilevlm_demo() -> int:
    """Camera, node and client together."""
    return _run("mobilevlm_demo", "mobilevlm_ros.demo.run")


def _run(name: str, module: str) -> int:
    tolerate_any_terminal()
    try:
        main = importlib.import_module(module).main
    except ImportError as error:  # missing, or built for another Python
        if (error.name or "").split(".")[0] not in ROS_PACKAGES:
            raise
        missing = "the workspace that holds this package" if error.name == "mobilevlm_msgs" else "your ROS 2"
        reason = " ".join(str(error).split())
        print(
            f"{name}: error: this needs ROS 2 ({reason}): source the setup.bash of {missing}, or use "
            "`mobilevlm ask`, which needs no ROS; `mobilevlm checks` tells more",
            file=sys.stderr,
        )
        return 1
    status: int = main()
    return status
