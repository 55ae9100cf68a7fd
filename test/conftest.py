# SPDX-License-Identifier: Apache-2.0
"""Every test session has a ROS domain of its own on this machine: it neither hears nor disturbs others."""

import os

from mobilevlm_ros.nodes.resources import private_environment

# Before anything imports rclpy; child processes inherit it.
os.environ.update(private_environment(dict(os.environ)))
