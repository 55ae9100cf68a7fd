# SPDX-License-Identifier: Apache-2.0
"""The ASGI application: routes, limits, Prometheus metrics, what the web page asks for."""
