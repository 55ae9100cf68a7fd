# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from mobilevlm_ros.engine.runtime import load_runtime
from mobilevlm_ros.memory.vectors import TextVectors, vectors_of


@pytest.fixture(scope="session")
def vectors(any_bundle: Path) -> TextVectors:
    """Of the shipped model."""
    return vectors_of(load_runtime(any_bundle, threads=1))
