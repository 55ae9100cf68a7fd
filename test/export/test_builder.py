# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import resource
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from mobilevlm_ros.checkpoints.checkpoint import open_checkpoint
from mobilevlm_ros.engine.bundle import EMBEDDINGS, Bundle
from mobilevlm_ros.engine.cuda.device import Gpu
from mobilevlm_ros.engine.tensorrt.plans import Key, PlanCache
from mobilevlm_ros.errors import BundleError, CheckpointError, OptionError
from mobilevlm_ros.export.builder import build_bundle
from mobilevlm_ros.export.options import BuildOptions
from mobilevlm_ros.export.quantization.precision import DecoderPrecision


def test_a_bundle_verifies_and_says_what_it_is(tiny_checkpoint, tmp_path):
    precision = DecoderPrecision(overrides={"lm_head": 8})
    built = build_bundle(
        tiny_checkpoint, tmp_path / "deep" / "bundle", BuildOptions(precision=precision, name="robot-model")
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
    plan = plan_in(out)
    with pytest.raises(BundleError, match="use --force"):
        build_bundle(tiny_checkpoint, out)
    with pytest.raises(KeyboardInterrupt):
        build_bundle(tiny_checkpoint, out, force=True, progress=interrupt_at_the_end)
    Bundle.open(out)  # an interrupted replacement leaves the old one
    build_bundle(tiny_checkpoint, out, BuildOptions(name="new"), force=True)
    assert Bundle.open(out).manifest.name == "new"
    assert plan.read_bytes().endswith(b"minutes of work")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def plan_in(bundle: Path) -> Path:
    """A plan, as a GPU's backend keeps it in the bundle."""
    cache = PlanCache.beside(bundle)
    key = Key.of("0" * 64, "10.3.0", Gpu("Orin", (8, 7)), "typed", {})
    cache.store("decoder.trt.onnx", key, b"minutes of work")
    return cache.path("decoder.trt.onnx", key)


@pytest.mark.parametrize(
    "name", ["notes.txt", "plans/notes.txt", "decoder.onnx.bak", "vision.plan", ".hidden"]
)
def test_files_of_others_are_named_and_stay(tiny_checkpoint, tiny_bundle, tmp_path, name):
    out = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_text("mine")
    with pytest.raises(BundleError, match=f"holds {name.split('/')[0]}, which is not the bundle's"):
        build_bundle(tiny_checkpoint, out, force=True)
    assert (out / name).read_text() == "mine"
    Bundle.open(out)


def test_a_foreign_bundle_json_makes_no_bundle(tiny_checkpoint, tmp_path):
    (tmp_path / "bundle.json").write_text('{"name": "my-web-app", "files": ["index.html"]}')
    (tmp_path / "index.html").touch()
    with pytest.raises(BundleError, match="is not a bundle"):
        build_bundle(tiny_checkpoint, tmp_path, force=True)
    assert (tmp_path / "index.html").exists()


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


def test_what_appears_there_meanwhile_is_not_replaced(tiny_checkpoint, tmp_path):
    out = tmp_path / "bundle"

    def somebody(done: int, total: int, what: str) -> None:
        out.mkdir(exist_ok=True)
        (out / "notes.txt").touch()

    with pytest.raises(BundleError, match="is not a bundle"):
        build_bundle(tiny_checkpoint, out, progress=somebody)
    assert [path.name for path in tmp_path.rglob("*")] == ["bundle", "notes.txt"]


def test_a_link_stays_a_link(tiny_checkpoint, tiny_bundle, tmp_path):
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "v1"))
    (tmp_path / "current").symlink_to(bundle)
    build_bundle(tiny_checkpoint, tmp_path / "current", BuildOptions(name="new"), force=True)
    assert (tmp_path / "current").is_symlink()
    assert Bundle.open(bundle).manifest.name == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current", "v1"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    "name", ["lm_head.weight", "model.embed_tokens.weight", "model.mm_projector.peg.peg.0.weight"]
)
def test_weights_that_are_no_numbers_are_refused_by_name(tiny_checkpoint, tmp_path, name, value):
    broken = Path(shutil.copytree(tiny_checkpoint, tmp_path / "broken"))
    (file,) = broken.glob("*.safetensors")
    tensors = load_file(file)
    tensors[name].view(-1)[7] = value
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"{name} holds NaN or infinity"):
        build_bundle(broken, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_another_models_tokenizer_is_refused(tiny_checkpoint, tmp_path):
    other = Path(shutil.copytree(tiny_checkpoint, tmp_path / "other"))
    config = json.loads((other / "config.json").read_text())
    (file,) = other.glob("*.safetensors")
    tensors = {
        key: value[:64].clone() if key in ("lm_head.weight", "model.embed_tokens.weight") else value
        for key, value in load_file(file).items()
    }
    save_file(tensors, file, metadata={"format": "pt"})
    (other / "config.json").write_text(json.dumps({**config, "vocab_size": 64}))
    with pytest.raises(CheckpointError, match=r"the tokenizer has \d+ ids and the model's vocabulary 64"):
        build_bundle(other, tmp_path / "bundle")


@pytest.mark.parametrize("pattern", ["nothing", "lm_head.weight", "down_proj", "*.q_proj"])
def test_a_pattern_must_match_some_matrix(tiny_checkpoint, tmp_path, pattern):
    with pytest.raises(OptionError, match=r"no matrix is called .*model\.layers\.0\.mlp\.down_proj"):
        build_bundle(
            tiny_checkpoint, tmp_path / "b", BuildOptions(precision=DecoderPrecision(overrides={pattern: 8}))
        )
