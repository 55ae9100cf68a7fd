# SPDX-License-Identifier: Apache-2.0
"""Why a YAML file cannot be read, without a word of what is in it: it may be another file by mistake."""

from __future__ import annotations


def yaml_reason(error: Exception) -> str:
    """The place of the fault, as far as the parser tells."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return f"{type(error).__name__} while it was read"
    return f"line {mark.line + 1}, column {mark.column + 1} cannot be read as `field: value` lines or a list"
