# SPDX-License-Identifier: Apache-2.0
"""Reference data from the official training code at tiny size (test/data/train/README.md)."""

from pathlib import Path

import pytest

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="session")
def train_ref() -> Path:
    """What the official trainer read and wrote."""
    return DATA / "train"


@pytest.fixture(scope="session")
def ckpt() -> Path:
    """The folder with the tiny CLIP directory."""
    return DATA / "parity" / "ckpt"


@pytest.fixture(scope="session")
def tiny_run(train_ref: Path, ckpt: Path) -> list[str]:
    """Options of `mobilevlm train` for the tiny V2 model: eight steps, single samples, a checkpoint every
    two."""
    settings = [
        f"model.vision_tower={ckpt / 'tiny-clip-336'}",
        f"model.tokenizer={train_ref / 'llm' / 'tokenizer.model'}",
        "run.precision=fp32",
        "batch.size=1",
        "schedule.epochs=1",
        "data.workers=0",
        "run.save_every=2",
    ]
    words = ["--model", str(train_ref / "v2_stage1"), "--data", str(train_ref / "instruct.json")]
    words += ["--images", str(train_ref / "images"), "--threads", "1", "--quiet"]
    return [*words, *(word for setting in settings for word in ("--set", setting))]
