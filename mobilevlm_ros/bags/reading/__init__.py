# SPDX-License-Identifier: Apache-2.0
"""Recordings of ROS 2 (MCAP, sqlite3) and ROS 1, read in the order in which they were recorded.

Whatever is damaged is read as far as it goes, and said. No message definition of a recording is trusted: the
few types that matter are known.
"""
