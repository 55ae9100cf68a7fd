# SPDX-License-Identifier: Apache-2.0
"""What is no MobileVLM checkpoint, or not the one that the hub has, is named with what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fixtures.downloads import POINTER, WEIGHTS, as_shards, configure, v2

from mobilevlm_ros.checkpoints.checkpoint import open_checkpoint
from mobilevlm_ros.engine.bundle import Bundle
from mobilevlm_ros.errors import BundleError, CheckpointError
from mobilevlm_ros.files.json_fields import read_json

__all__ = ["v2"]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "llava"}, r"a LLaVA in transformers' layout \(llava, as llava-hf .* original layout"),
        ({"model_type": "llava_next", "text_config": {}}, "a LLaVA in transformers' layout"),
        ({"model_type": "qwen2_5_vl", "vision_config": {}}, r"another vision-language model \(qwen2_5_vl\)"),
        ({"model_type": "idefics3", "text_config": {}}, "another vision-language model"),
        ({"model_type": "clip_vision_model"}, "an image encoder alone"),
        ({"model_type": "siglip"}, "an image encoder alone"),
        ({"model_type": "llama"}, r"a language model without vision \(llama"),
        ({"model_type": "x" * 10000}, r"\(x{60}\.\.\."),
    ],
    ids=lambda value: str(value)[:40],
)
def test_the_config_of_another_model_is_named(v2: Path, config: dict[str, object], said: str) -> None:
    (v2 / "config.json").write_text(json.dumps({"hidden_size": 64, **config}))
    with pytest.raises(CheckpointError, match=said) as error:
        open_checkpoint(v2)
    assert len(str(error.value)) < 700


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes"])
def test_a_checkpoint_that_is_quantised_already_is_named(v2: Path, method: str) -> None:
    configure(v2, quantization_config={"quant_method": method, "bits": 4})
    with pytest.raises(CheckpointError, match=rf"quantised already \({method}\).*16 or 32 bits"):
        open_checkpoint(v2)


def test_heads_of_another_size_are_refused(v2: Path) -> None:
    configure(v2, head_dim=64)
    with pytest.raises(CheckpointError, match="head_dim is 64"):
        open_checkpoint(v2)


@pytest.mark.parametrize(
    ("rename", "said"),
    [
        (lambda n: "language_model." + n, "llava-hf"),
        (lambda n: n.replace("model.mm_projector", "multi_modal_projector"), "llava-hf"),
        (lambda n: "base_model.model." + n, "PEFT"),
        (lambda n: "_orig_mod." + n, r"torch\.compile"),
        (lambda n: "module." + n, "several GPUs"),
        (lambda n: n.replace("q_proj.weight", "q_proj.qweight"), "quantised already"),
        (lambda n: n.replace("up_proj.weight", "up_proj.weight_packed"), "quantised already"),
    ],
)
def test_tensors_of_another_layout_are_named(v2: Path, rename: Callable[[str], str], said: str) -> None:
    tensors = torch.load(v2 / WEIGHTS, weights_only=True)
    torch.save({rename(name): tensor for name, tensor in tensors.items()}, v2 / WEIGHTS)
    with pytest.raises(CheckpointError, match=said):
        open_checkpoint(v2)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mm_projector.bin", "only a projector"),
        ("zero_to_fp32.py", "DeepSpeed"),
        ("global_step1000", "DeepSpeed"),
        ("__0_0.distcp", "distributed"),
        ("consolidated.00.pth", "Meta's own layout"),
        ("last.ckpt", "save_pretrained"),
        ("flax_model.msgpack", "Flax"),
        ("weights.npz", "NumPy"),
        ("decoder.onnx", "ONNX"),
        ("checkpoint-500", "checkpoints of a training"),
        ("model-00001-of-00002.safetensors", "without their index"),
        ("pytorch_model-00001-of-00002.bin", "without their index"),
        ("model.fp16.safetensors", "under other names"),
    ],
)
def test_a_directory_without_weights_says_what_it_holds(v2: Path, name: str, said: str) -> None:
    (v2 / WEIGHTS).unlink()
    (v2 / name).write_bytes(b"x")
    with pytest.raises(CheckpointError, match=f"holds no weights; .*{said}"):
        open_checkpoint(v2)


def test_an_index_of_another_save_is_named(v2: Path) -> None:
    as_shards(v2)
    open_checkpoint(v2)
    index = json.loads((v2 / "model.safetensors.index.json").read_text())
    index["weight_map"] = {k: v for k, v in index["weight_map"].items() if "mm_projector" not in k}
    (v2 / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"index is of another save .*mm_projector.* copy the index"):
        open_checkpoint(v2)


def test_a_projector_that_lies_apart_is_named(v2: Path) -> None:
    tensors = torch.load(v2 / WEIGHTS, weights_only=True)
    torch.save({k: v for k, v in tensors.items() if "mm_projector" not in k}, v2 / WEIGHTS)
    with pytest.raises(CheckpointError, match="bare language model"):
        open_checkpoint(v2)
    (v2 / "mm_projector.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"it lies apart in mm_projector\.bin"):
        open_checkpoint(v2)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "model.safetensors.index.json"])
def test_pointers_of_git_lfs_in_json_say_how_to_get_the_content(v2: Path, name: str) -> None:
    (v2 / name).write_bytes(POINTER)
    with pytest.raises(CheckpointError, match=rf"{name} .*git lfs pull"):
        read_json(v2 / name)
    if name == "model.safetensors.index.json":
        (v2 / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="git lfs pull"):
        open_checkpoint(v2)


@pytest.mark.parametrize("name", ["bundle.json", "vision.onnx.data", "tokenizer.model", "embeddings.npy"])
def test_pointers_in_a_bundle_do_too(tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    (bundle / name).write_bytes(POINTER)
    with pytest.raises(BundleError, match=rf"{name} .*git lfs pull"):
        Bundle.open(bundle)
