# SPDX-License-Identifier: Apache-2.0
"""The front door: `from mobilevlm_ros import MobileVLM`."""
