# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import resource
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from mobilevlm_ros.engine.build import build_bundle
from mobilevlm_ros.engine.bundle import EMBEDDINGS, Bundle
from mobilevlm_ros.engine.export_decoder import DecoderPrecision
from mobilevlm_ros.errors import BundleError, CheckpointError
from mobilevlm_ros.model.checkpoint import open_checkpoint


def test_a_bundle_verifies_and_says_what_it_is(tiny_checkpoint, tmp_path):
    precision = DecoderPrecision(overrides={"lm_head": 8})
    built = build_bundle(
        tiny_checkpoint, tmp_path / "deep" / "bundle", precision=precision, name="robot-model"
    )
    opened = Bundle.open(tmp_path / "deep" / "bundle")
    assert opened == built
    manifest = opened.manifest
    assert manifest.name == "robot-model"
    assert manifest.precision["decoder_bits"] == 4
    assert manifest.precision["overrides"] == {"lm_head": 8}
    assert manifest.requires == {"onnxruntime": "1.22"}
    assert manifest.source["name"] == tiny_checkpoint.name
    assert sorted(manifest.files) == sorted(
        path.name for path in opened.path.iterdir() if path.name != "bundle.json"
    )
    config, source = open_checkpoint(tiny_checkpoint)
    assert manifest.model == config.to_json_dict()
    table = source.tensor("model.embed_tokens.weight").numpy()
    np.testing.assert_array_equal(np.load(opened.path / EMBEDDINGS), table.astype(np.float16))


def test_the_same_checkpoint_gives_the_same_files(tiny_checkpoint, tiny_bundle, tmp_path):
    again = build_bundle(tiny_checkpoint, tmp_path / "again").manifest
    first = Bundle.open(tiny_bundle).manifest
    assert again.files == first.files
    assert again.source == first.source


def test_progress_counts_up_to_the_total(tiny_checkpoint, tmp_path):
    seen: list[tuple[int, int]] = []
    build_bundle(
        tiny_checkpoint, tmp_path / "b", progress=lambda done, total, what: seen.append((done, total))
    )
    assert [done for done, _ in seen] == list(range(len(seen)))
    assert {total for _, total in seen} == {len(seen) - 1}


@pytest.mark.parametrize("step", [0, 2, 5])
def test_ctrl_c_leaves_nothing(tiny_checkpoint, tmp_path, step):
    def press(done: int, total: int, what: str) -> None:
        if done == step:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        build_bundle(tiny_checkpoint, tmp_path / "bundle", progress=press)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_and_is_said(tiny_checkpoint, tmp_path):
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, old[1]))  # writing past it fails as on a full disk
    try:
        with pytest.raises(BundleError, match=r"cannot write .*bundle.*free space"):
            build_bundle(tiny_checkpoint, tmp_path / "bundle")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert list(tmp_path.iterdir()) == []


def test_an_old_bundle_is_replaced_only_when_told(tiny_checkpoint, tiny_bundle, tmp_path):
    out = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    (out / "vision.plan").touch()  # made here by a backend; belongs to the old files
    with pytest.raises(BundleError, match="use --force"):
        build_bundle(tiny_checkpoint, out)
    with pytest.raises(KeyboardInterrupt):
        build_bundle(tiny_checkpoint, out, force=True, progress=interrupt_at_the_end)
    Bundle.open(out)  # an interrupted replacement leaves the old one
    build_bundle(tiny_checkpoint, out, force=True, name="new")
    assert Bundle.open(out).manifest.name == "new"
    assert not (out / "vision.plan").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def interrupt_at_the_end(done: int, total: int, what: str) -> None:
    if what == "checksums":
        raise KeyboardInterrupt


def test_a_directory_of_something_else_is_never_replaced(tiny_checkpoint, tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(BundleError, match="is not a bundle"):
        build_bundle(tiny_checkpoint, tmp_path, force=True)
    assert (tmp_path / "thesis.tex").exists()


def test_an_empty_directory_will_do(tiny_checkpoint, tmp_path):
    build_bundle(tiny_checkpoint, tmp_path)
    Bundle.open(tmp_path)


def test_what_is_no_checkpoint_is_refused(tiny_checkpoint, tmp_path):
    with pytest.raises(CheckpointError):
        build_bundle(tmp_path / "nowhere", tmp_path / "bundle")
    broken = Path(shutil.copytree(tiny_checkpoint, tmp_path / "broken"))
    (broken / "tokenizer.model").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="tokenizer"):
        build_bundle(broken, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
