# SPDX-License-Identifier: Apache-2.0
"""Images over ROS: from messages to RGB and back, and what is drawn onto them."""
