# SPDX-License-Identifier: Apache-2.0
"""Every field of a bundle.json with values that nobody means: a typed error or a bundle, at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from time import process_time
from typing import Any

import pytest

from mobilevlm_ros.engine.bundle import MANIFEST, Bundle, Manifest
from mobilevlm_ros.engine.onnxruntime import backend as ort
from mobilevlm_ros.errors import BundleError, EngineError, MobileVLMError


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 7, 2**31, 2**63, 10**300, 0.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", "x", "\ud800", "a\0b", "x" * 100_000, "../../etc/passwd", "²", "9" * 5000, "v1", "pad"),
    *([], [None], [0], [-1], [10**9], [2] * 5000, ["x"], {}, {"x": None}, {"x": 1}, {"x": "y"}),
    *({"bytes": 1, "sha256": "0"}, {"bytes": 1 << 41, "sha256": "0" * 64}, nested(40), nested(400)),
]
FIELDS = list(Manifest.__dataclass_fields__)


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def attempts(data: dict[str, Any], field: str) -> list[dict[str, Any]]:
    """The manifest with every hostile value of a field, and of each entry of one that has entries."""
    made = [{**data, field: value} for value in VALUES]
    if isinstance(data[field], dict):
        for key in [*list(data[field])[:6], "", "x" * 1000, "\ud800"]:
            made += [{**data, field: {**data[field], key: value}} for value in VALUES]
    return made


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_is_taken_or_refused_at_once(bundle: Path, field: str) -> None:
    data = json.loads((bundle / MANIFEST).read_text())
    for attempt in attempts(data, field):
        (bundle / MANIFEST).write_text(json.dumps(attempt))
        start = process_time()
        try:
            opened = Bundle.open(bundle)
            assert opened.manifest.model_id.isprintable()
            assert len(opened.manifest.model_id) <= 213
        except BundleError:
            pass
        assert process_time() - start < 1.0, str(attempt[field])[:80]


SIZES = ["image_size", "image_tokens", "hidden_size", "vocab_size", "num_layers", "num_kv_heads", "head_dim"]


@pytest.mark.parametrize("field", SIZES)
@pytest.mark.parametrize("value", [1, 3, (1 << 24) - 1])
def test_sizes_that_are_not_the_graphs_are_refused_before_anything_is_allocated(
    bundle: Path, field: str, value: int
) -> None:
    data = json.loads((bundle / MANIFEST).read_text())
    data["stop_ids"] = []
    (bundle / MANIFEST).write_text(json.dumps({**data, field: value}))
    with pytest.raises(BundleError, match=r"does not fit its graphs|image_size is more|where \["):
        ort.load(Bundle.open(bundle), threads=1)


@pytest.mark.parametrize("version", ["9" * 5000, "²", "", "x.y", "99.1", "1.\ud800"])
def test_a_version_that_is_none_is_no_untyped_error(bundle: Path, version: str) -> None:
    data = json.loads((bundle / MANIFEST).read_text())
    (bundle / MANIFEST).write_text(json.dumps({**data, "requires": {"onnxruntime": version}}))
    try:
        ort.load(Bundle.open(bundle), threads=1)
    except MobileVLMError as error:
        assert isinstance(error, (EngineError, BundleError))  # noqa: PT017


def test_an_unknown_template_is_named(bundle: Path) -> None:
    data = json.loads((bundle / MANIFEST).read_text())
    (bundle / MANIFEST).write_text(json.dumps({**data, "template": "x"}))
    with pytest.raises(BundleError, match="template is none of v1"):
        Bundle.open(bundle)
