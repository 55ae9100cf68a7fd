# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from mobilevlm_ros.cli import main

NANO = Path(__file__).parents[3] / "models" / "nano" / "bundle"


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_without_tensorrt_it_says_where_to_get_it(capsys):
    assert main(["compile", str(NANO)]) == 1
    assert "the package tensorrt cannot be imported" in capsys.readouterr().err


def test_a_directory_that_is_no_bundle_is_refused(tmp_path, capsys):
    assert main(["compile", str(tmp_path)]) == 1
    assert "is not a bundle" in capsys.readouterr().err
