# SPDX-License-Identifier: Apache-2.0
"""What a config.json says about the rotary embedding, in transformers' words before and since version 5."""

from __future__ import annotations

from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.files.json_fields import Json, short


def rope_parameters(data: Json) -> Json:
    """`rope_parameters`, or `rope_scaling` before version 5."""
    given = data.get("rope_parameters") or data.get("rope_scaling") or {}
    return given if isinstance(given, dict) else {"rope_type": given}


def rope_factor(data: Json, source: str) -> float:
    """How far positions are stretched by linear interpolation. Raises CheckpointError for other kinds."""
    scaling = rope_parameters(data)
    kind = scaling.get("type", scaling.get("rope_type", "default"))
    if kind == "default":
        return 1.0
    factor = scaling.get("factor")
    if kind != "linear" or not isinstance(factor, (int, float)) or not 1 <= factor < 1024:
        raise CheckpointError(
            f"{source}: rope_scaling {short(scaling)} is not supported; use "
            "{'type': 'linear', 'factor': >= 1}"
        )
    return float(factor)
