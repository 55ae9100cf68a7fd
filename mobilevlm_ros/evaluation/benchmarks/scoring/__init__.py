# SPDX-License-Identifier: Apache-2.0
"""From answers files to scores."""
