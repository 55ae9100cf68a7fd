# SPDX-License-Identifier: Apache-2.0
"""ROS 2: wires topics, services, actions, parameters and the lifecycle to `inference`."""
