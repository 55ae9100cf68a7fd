# SPDX-License-Identifier: Apache-2.0
"""Runs a bundle: the interfaces of a backend, and one package for each backend."""
