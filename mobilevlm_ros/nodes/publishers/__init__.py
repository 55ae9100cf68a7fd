# SPDX-License-Identifier: Apache-2.0
"""What the node publishes without being asked: captions, monitors, metrics, pictures, diagnostics."""
