# SPDX-License-Identifier: Apache-2.0
"""Our models inside the harnesses people already use. Each module needs its harness installed."""
