# SPDX-License-Identifier: Apache-2.0
"""A loaded bundle is a copy: whatever happens to its files later, answers stay what they were."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mobilevlm_ros.engine.bundle import DECODER, EMBEDDINGS, MANIFEST, VISION, Bundle, seal
from mobilevlm_ros.engine.onnxruntime import backend as ort
from mobilevlm_ros.engine.sealed_file import verify
from mobilevlm_ros.errors import BundleError, EngineError

SCRIPT = Path(__file__).with_name("destroying_writes.py")
"""In a process of its own: a mapped file that is cut off ends it with SIGBUS."""


@pytest.mark.parametrize("release", ["new", "old"])
def test_no_write_to_a_loaded_bundle_changes_or_ends_anything(tiny_bundle, tmp_path, release):
    arguments = [sys.executable, str(SCRIPT), str(tiny_bundle), str(tmp_path), release]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "unmoved\n"), done.stderr


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.mark.parametrize(
    "name", [VISION, f"{VISION}.data", "decoder.tree.onnx", f"{DECODER}.data", EMBEDDINGS]
)
def test_a_file_that_changes_between_its_check_and_its_use_is_refused(bundle, name):
    opened = Bundle.open(bundle)
    content = (bundle / name).read_bytes()
    (bundle / name).write_bytes(content)  # the same bytes: who knows what was between
    with pytest.raises(BundleError, match=f"{name} was changed while it was loaded"):
        ort.load(opened)


@pytest.mark.parametrize("name", [f"{VISION}.data", f"{DECODER}.data"])
def test_weights_that_the_manifest_leaves_out_are_not_loaded(bundle, name, monkeypatch):
    """They would come in unverified, from the bundle or from the directory that the process runs in."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    del manifest["files"][name]
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    monkeypatch.chdir(bundle)
    with pytest.raises(BundleError, match=f"needs {name}, which its manifest does not list"):
        ort.load(Bundle.open(bundle))


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (np.zeros((704, 63), np.float16), r"float16 \[704, 63\], where \[704, 64\]"),
        (np.zeros((10, 64), np.float16), "where"),
        (np.zeros((704, 64), np.int16), "int16"),
        (np.asfortranarray(np.zeros((704, 64), np.float16)), "where"),
        (np.zeros((704, 64), object), "object"),
        (b"", "cannot be read"),
        (b"\x93NUMPY\x01\x00\x10\x00{'descr': foo() }", "cannot be read"),
        (
            b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f2', 'fortran_order': False, 'shape': (704, 64), }".ljust(
                128
            ),
            "trunc",
        ),
    ],
    ids=str,
)
def test_a_table_that_is_another_is_refused(bundle, array, what):
    file = bundle / EMBEDDINGS
    if isinstance(array, bytes):
        file.write_bytes(array)
    else:
        np.save(file, array, allow_pickle=True)
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["files"].update(seal([EMBEDDINGS], bundle))
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=what):
        ort.load(Bundle.open(bundle))


@pytest.mark.parametrize("kind", ["pipe", "device", "directory", "hole", "island"])
def test_files_without_end_or_content_are_refused_at_once(tmp_path, kind):
    path, size = tmp_path / "decoder.onnx.data", 2 << 40
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "directory":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(size)
            if kind == "island":
                file.seek(size // 2)
                file.write(b"x" * 10000)
    with pytest.raises(BundleError, match=r"no regular file|mostly holes"):
        verify(path, size, "0" * 64)


def test_a_file_that_cannot_be_run_is_an_engine_error(bundle):
    (bundle / VISION).write_bytes(b"no graph")
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["files"].update(seal([VISION], bundle))
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(EngineError, match=r"cannot load .*vision\.onnx"):
        ort.load(Bundle.open(bundle))
