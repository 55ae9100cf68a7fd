# SPDX-License-Identifier: Apache-2.0
"""Questions on frames: prompt assembly, prefix reuse, sampling, choices, scheduling. Knows nothing of ROS."""
