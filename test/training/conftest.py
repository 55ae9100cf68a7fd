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
