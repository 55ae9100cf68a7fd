# SPDX-License-Identifier: Apache-2.0
"""Bundles: build them from a checkpoint, and run them on the backends a machine offers."""
