# SPDX-License-Identifier: Apache-2.0
"""The paper's stages as data: what each trains, on what, and with which numbers unless a recipe says
otherwise.

Sources: MobileVLM (arXiv 2312.16886) section 4 and the official scripts run_v1.sh (V1), run.sh (V2) and
mobilellama/sft.
"""

from __future__ import annotations

from typing import Any

from mobilevlm_ros.training.recipe import StageName

STAGES: dict[StageName, dict[str, Any]] = {
    # MobileLLaMA from random weights, on text alone (paper, section 4.1).
    "pretrain-llm": {
        "stage": "pretrain-llm",
        "train": "language",
        "optimizer": {"learning_rate": 3e-4, "weight_decay": 0.1, "beta2": 0.95, "clip": 1.0},
        "schedule": {"warmup_steps": 2000, "final_ratio": 0.1},
    },
    # MobileLLaMA to MobileLLaMA-Chat: ShareGPT conversations, answers taught.
    "sft": {
        "stage": "sft",
        "train": "language",
        "optimizer": {"learning_rate": 2e-5, "clip": 1.0},
        "schedule": {"epochs": 3.0, "warmup_ratio": 0.04},
        "batch": {"size": 16, "accumulation": 2},
    },
    # Stage 1: captions teach the projector to speak the language model's embeddings; V2 trains both.
    "align": {
        "stage": "align",
        "train": "all",
        "data": {"template": "plain", "aspect": "crop"},
        "optimizer": {"learning_rate": 2e-5, "projector_learning_rate": 1e-3},
        "batch": {"size": 32},
    },
    # Stage 2: questions about pictures.
    "instruct": {
        "stage": "instruct",
        "train": "all",
        "data": {"group_by_modality": True},
        "optimizer": {"learning_rate": 4e-5},
    },
    # Stage 2 with adapters instead of all weights; also the way to teach a released model something new.
    "lora": {
        "stage": "lora",
        "train": "lora",
        "data": {"group_by_modality": True},
        "optimizer": {"learning_rate": 2e-4},
    },
}
