# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilevlm_ros.engine.bundle import DECODER, MANIFEST, SCHEMA_VERSION, Bundle, Manifest
from mobilevlm_ros.errors import BundleError


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle to damage."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def edit(bundle: Path, **changes: object) -> None:
    data = json.loads((bundle / MANIFEST).read_text())
    (bundle / MANIFEST).write_text(json.dumps({**data, **changes}))


def test_manifest_survives_a_round_trip(tiny_bundle):
    manifest = Bundle.open(tiny_bundle).manifest
    assert Manifest.from_json(manifest.to_json(), "x") == manifest
    assert (manifest.image_size, manifest.image_tokens, manifest.image_aspect) == (48, 144, "pad")
    assert (manifest.hidden_size, manifest.vocab_size, manifest.context_length) == (64, 704, 512)
    assert (manifest.template, manifest.stop_ids) == ("v1", (2,))


def test_a_flipped_bit_is_found(bundle):
    file = bundle / "decoder.onnx.data"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleError, match=r"decoder\.onnx\.data is damaged or altered"):
        Bundle.open(bundle)


def test_a_truncated_file_is_found(bundle):
    file = bundle / DECODER
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(BundleError, match=r"decoder\.onnx is \d+ bytes instead of \d+"):
        Bundle.open(bundle)


def test_a_missing_file_is_named(bundle):
    (bundle / "tokenizer.model").unlink()
    with pytest.raises(BundleError, match=r"tokenizer\.model is missing; copy it again"):
        Bundle.open(bundle)


def test_a_half_written_directory_is_no_bundle(bundle):
    (bundle / MANIFEST).unlink()
    with pytest.raises(BundleError, match=r"no bundle\.json.*mobilevlm build"):
        Bundle.open(bundle)


def test_a_cut_manifest_is_refused(bundle):
    text = (bundle / MANIFEST).read_text()
    (bundle / MANIFEST).write_text(text[: len(text) // 2])
    with pytest.raises(BundleError, match="is not JSON"):
        Bundle.open(bundle)
    (bundle / MANIFEST).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BundleError, match="cannot be read"):
        Bundle.open(bundle)


def test_a_manifest_from_the_future_is_refused(bundle):
    edit(bundle, schema_version=SCHEMA_VERSION + 1)
    with pytest.raises(BundleError, match=r"schema version 2, .* reads 1; build the bundle again"):
        Bundle.open(bundle)


@pytest.mark.parametrize(
    "changes",
    [
        {"image_size": "48"},
        {"image_size": True},
        {"hidden_size": -1},
        {"image_aspect": "stretch"},
        {"stop_ids": [2, "x"]},
        {"temperature": None},
        {"files": {"../secret": {"bytes": 1, "sha256": "0"}}},
        {"files": {"/etc/passwd": {"bytes": 1, "sha256": "0"}}},
        {"files": {"decoder.onnx": {"bytes": "1", "sha256": "0"}}},
        {"requires": {"onnxruntime": 1.2}},
    ],
    ids=str,
)
def test_wrong_fields_are_named(bundle, changes):
    edit(bundle, **changes)
    (name,) = changes
    with pytest.raises(BundleError, match=f"{name} is missing or wrong"):
        Bundle.open(bundle)


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_any_other_json_is_refused(value):
    with pytest.raises(BundleError):
        Manifest.from_json(json.dumps(value), "bundle.json")


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_any_other_text_is_refused(text):
    with pytest.raises(BundleError):
        Manifest.from_json(text, "bundle.json")


def test_a_checkpoint_is_told_from_a_bundle(tiny_checkpoint):
    with pytest.raises(BundleError, match=r"is a checkpoint, not a bundle; run `mobilevlm build"):
        Bundle.open(tiny_checkpoint)


def test_paths_that_hold_no_bundle(tmp_path):
    with pytest.raises(BundleError, match="does not exist; make one with"):
        Bundle.open(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="is a file; a bundle is a directory"):
        Bundle.open(tmp_path / "file")
    with pytest.raises(BundleError, match="is not a bundle"):
        Bundle.open(tmp_path)


def test_only_listed_files_are_handed_out(tiny_bundle):
    bundle = Bundle.open(tiny_bundle)
    assert bundle.file(DECODER) == tiny_bundle / DECODER
    with pytest.raises(BundleError, match=r"has no vision\.plan"):
        bundle.file("vision.plan")


def test_an_optional_file_is_added_and_replaced(bundle):
    opened = Bundle.open(bundle)
    for content in (b"{}", b'{"temperature": 1.5}', b""):
        opened = opened.add_file("calibration.json", content)
        again = Bundle.open(bundle)  # verifies the checksums
        assert again.manifest == opened.manifest
        assert again.file("calibration.json").read_bytes() == content
    assert not [path for path in bundle.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    "name", [MANIFEST, DECODER, "decoder.onnx.data", "tokenizer.model", "../x", "", "a\0"]
)
def test_the_models_own_files_are_not_replaced(bundle, name):
    with pytest.raises(ValueError, match="not the name of an optional file"):
        Bundle.open(bundle).add_file(name, b"x")
    Bundle.open(bundle)


@pytest.mark.parametrize("calls", range(1, 4))
def test_a_power_cut_while_adding_leaves_a_valid_bundle(bundle, monkeypatch, calls):
    """Whichever of the three renames never happens."""
    opened = Bundle.open(bundle).add_file("calibration.json", b"old")
    replace, done = os.replace, []

    def cut(source, target):
        done.append(target)
        if len(done) == calls:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", cut)
    with pytest.raises(KeyboardInterrupt):
        opened.add_file("calibration.json", b"new")
    found = Bundle.open(bundle)
    assert ("calibration.json" in found.manifest.files) == (calls == 1)


def test_a_bundle_that_cannot_be_written_says_so(bundle, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    opened = Bundle.open(bundle)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BundleError, match=r"cannot write calibration\.json .*No space left.*free space"):
        opened.add_file("calibration.json", b"x")
    assert Bundle.open(bundle).manifest == opened.manifest


def test_bundles_from_before_quality_was_measured_open(bundle):
    data = json.loads((bundle / MANIFEST).read_text())
    data.pop("quality", None)
    (bundle / MANIFEST).write_text(json.dumps(data))
    assert Bundle.open(bundle).manifest.quality == {}


@pytest.mark.parametrize("kind", ["pipe", "device", "endless"])
def test_a_manifest_that_never_ends_is_refused(tmp_path, kind):
    manifest = tmp_path / "bundle.json"
    if kind == "pipe":
        os.mkfifo(manifest)
    elif kind == "device":
        manifest.symlink_to("/dev/zero")
    else:
        with manifest.open("wb") as file:
            file.truncate(1 << 40)
    with pytest.raises(BundleError):
        Bundle.open(tmp_path)
