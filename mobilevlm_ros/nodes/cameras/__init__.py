# SPDX-License-Identifier: Apache-2.0
"""Frames of each camera, taken from the middleware only when somebody needs one."""
