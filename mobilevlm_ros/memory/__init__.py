# SPDX-License-Identifier: Apache-2.0
"""What the cameras have shown, in words that one can search: an SQLite file. Knows nothing of ROS."""
