# SPDX-License-Identifier: Apache-2.0
"""Every field of a config.json with values that nobody means: a typed error or a model, at once."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from time import process_time
from typing import Any

import pytest

from mobilevlm_ros.checkpoints.checkpoint import open_checkpoint
from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.model.config import MobileVLMConfig

VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 3, 1 << 23, 2**63, 10**300, 0.5, -0.0, 1e308, float("nan"), float("inf")),
    *(
        "",
        "x",
        "\ud800",
        "a\0b",
        "x" * 10_000,
        "../../etc/passwd",
        "/dev/zero",
        "ldpnet",
        "mlp99x_gelu",
        "v2",
    ),
    *([], [None], [-1], [10**9], ["x"], {}, {"x": None}, {"type": "linear", "factor": "x"}, {"factor": []}),
    *({"type": [], "factor": 2}, {"rope_type": "linear", "factor": float("nan")}, {"quant_method": {}}),
]
MORE = (
    "rope_parameters",
    "rope_theta",
    "head_dim",
    "quantization_config",
    "mm_use_im_start_end",
    "text_config",
)


@pytest.fixture
def checkpoint(parity: Path, tmp_path: Path) -> Path:
    path = Path(shutil.copytree(parity / "ckpt" / "tiny-ldpnetv2", tmp_path / "v2"))
    shutil.copytree(parity / "ckpt" / "tiny-clip-336", tmp_path / "tiny-clip-336")
    (path / "config.json").chmod(0o644)
    return path


def test_every_field_is_taken_or_refused_at_once(checkpoint: Path) -> None:
    data = json.loads((checkpoint / "config.json").read_text())
    geometry = json.loads((checkpoint.parent / "tiny-clip-336" / "config.json").read_text())
    inner = {**geometry.get("vision_config", geometry)}
    attempts = [{**data, key: value} for key in (*data, *MORE) for value in VALUES]
    attempts += [{**data, "vision_config": {**inner, k: v}} for k in (*inner, "hidden_act") for v in VALUES]
    opened = 0
    for attempt in attempts:
        start = process_time()
        with suppress(CheckpointError):
            config = MobileVLMConfig.from_json(attempt, "config.json")
            assert config.to_json_dict()
            assert config.num_image_tokens > 0 and config.language.context_length > 0
            if config.language.num_hidden_layers + config.vision.num_hidden_layers > 200:
                (checkpoint / "config.json").write_text(json.dumps(attempt))
                opened += 1
                open_checkpoint(checkpoint)
        assert process_time() - start < 1.0
    assert opened


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:30])
@pytest.mark.parametrize("name", ["eos_token_id", "mm_vision_tower"])
def test_files_that_it_leads_to_are_read_or_refused_at_once(checkpoint: Path, name: str, value: Any) -> None:
    (checkpoint / "generation_config.json").write_text(json.dumps({name: value}))
    data = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**data, name: value}))
    with suppress(CheckpointError):
        MobileVLMConfig.from_directory(checkpoint)
