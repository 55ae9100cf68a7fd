# SPDX-License-Identifier: Apache-2.0
"""What every package with ROS shares: image messages, stamps, status codes, running a node."""
