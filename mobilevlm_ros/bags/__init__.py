# SPDX-License-Identifier: Apache-2.0
"""Recordings: captioned, asked and watched without ROS, and what comes out of that."""
