# SPDX-License-Identifier: Apache-2.0
"""Every test session gets a ROS domain of its own on this machine, so that it neither hears nor disturbs others."""

import importlib.util
import os
from pathlib import Path

_path = Path(__file__).resolve().parent.parent / "tools" / "free_domain.py"
_spec = importlib.util.spec_from_file_location("free_domain", _path)
assert _spec and _spec.loader
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)

# Before anything imports rclpy; child processes inherit it.
os.environ["ROS_DOMAIN_ID"] = str(_module.free_domain())
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_LOCALHOST_ONLY"] = "1" if os.environ.get("ROS_DISTRO") == "humble" else "0"
os.environ["PYTHONUNBUFFERED"] = "1"  # what a child prints is there when it is read
