# SPDX-License-Identifier: Apache-2.0
"""The entry point `lmms_eval.models`: `lmms-eval --model mobilevlm`, where lmms-eval is installed."""

from __future__ import annotations

from typing import Any


def manifest() -> Any:
    """lmms-eval's ModelManifest of this model (its registry_v2, 0.6 and later)."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(
        model_id="mobilevlm",
        simple_class_path="mobilevlm_ros.evaluation.harness.lmms_model.MobileVLMForLmms",
    )
