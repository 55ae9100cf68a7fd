# SPDX-License-Identifier: Apache-2.0
"""Adapters: the official code's are read and merge to its logits; ours have its layout and the paper's
size."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mobilevlm_ros.checkpoints.checkpoint import load
from mobilevlm_ros.checkpoints.random_weights import CONFIGS
from mobilevlm_ros.cli import main
from mobilevlm_ros.training.data.conversations import Sample
from mobilevlm_ros.training.data.dataset import ConversationDataset, Pictures
from mobilevlm_ros.training.data.pictures import FolderPictures
from mobilevlm_ros.training.lora import read_adapters
from mobilevlm_ros.training.recipe import make_recipe
from mobilevlm_ros.training.run.estimate import count_parameters, estimate_memory
from mobilevlm_ros.training.stages import STAGES

TURNS = (("human", "<image>\nWhat?"), ("gpt", "x"))


def pixels(train_ref: Path, pictures: Pictures) -> torch.Tensor:
    tokenizer = train_ref / "llm" / "tokenizer.model"
    sample = Sample("x", TURNS, ("s1.png",))
    data = ConversationDataset(
        [sample], tokenizer, "v1", 2048, source=FolderPictures(train_ref / "images"), pictures=pictures
    )
    return torch.from_numpy(data[0].pixels)


@pytest.mark.parametrize(("version", "base"), [("v1", "llm"), ("v2", "v2_stage1")])
def test_official_adapters_merge_to_official_logits(
    version: str, base: str, train_ref: Path, ckpt: Path, tmp_path: Path
) -> None:
    options = ["--base", str(train_ref / base), "--vision-tower", str(ckpt / "tiny-clip-336")]
    options += ["--tokenizer", str(train_ref / "llm" / "tokenizer.model")]
    out = tmp_path / "merged"
    assert main(["merge", str(train_ref / f"{version}_lora"), "-o", str(out), *options]) == 0
    model = load(out)
    reference = np.load(train_ref / f"{version}_lora_logits.npz")
    with torch.no_grad():
        images = model.encode_images(pixels(train_ref, Pictures.of(model.config)))
        logits = model(model.embed_prompt(reference["input_ids"].tolist(), images))[0]
    np.testing.assert_allclose(logits[::8], reference["merged"], atol=1e-4)


def test_our_adapters_have_the_official_layout_and_merge(
    tiny_run: list[str], train_ref: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    options = ["--set", "lora.r=8", "--set", "schedule.steps=2", "-o", str(run)]
    assert main(["train", "lora", *tiny_run, *options]) == 0
    official = train_ref / "v2_lora"
    assert {k: v.shape for k, v in read_adapters(run).items()} == {
        k: v.shape for k, v in read_adapters(official).items()
    }
    projectors = [torch.load(d / "non_lora_trainables.bin", weights_only=True) for d in (run, official)]
    assert projectors[0].keys() == projectors[1].keys()
    ours, theirs = (json.loads((d / "adapter_config.json").read_text()) for d in (run, official))
    assert set(ours["target_modules"]) == set(theirs["target_modules"])
    assert main(["merge", str(run), "-o", str(tmp_path / "merged")]) == 0
    merged, base = load(tmp_path / "merged"), torch.load(train_ref / "v2_stage1" / "pytorch_model.bin")
    name = "model.layers.0.self_attn.q_proj"
    a, b = (read_adapters(run)[f"base_model.model.{name}.lora_{x}.weight"] for x in "AB")
    change = merged.state_dict()[f"{name}.weight"] - base[f"{name}.weight"]
    assert change.abs().max() > 0
    torch.testing.assert_close(change, 256 / 8 * b @ a, atol=1e-6, rtol=1e-4)

    # `build --base` is merge and build in one, and leaves nothing else behind
    plain = ["--quality", "0", "--vision", "fp32", "--name", "gate", "--quiet"]
    assert main(["build", str(tmp_path / "merged"), "-o", str(tmp_path / "two"), *plain]) == 0
    base_of = ["--base", str(train_ref / "v2_stage1")]
    assert main(["build", str(run), "-o", str(tmp_path / "one"), *base_of, *plain]) == 0
    written = [{f.name: f.read_bytes() for f in (tmp_path / name).glob("*.data")} for name in ("one", "two")]
    assert written[0] == written[1] and written[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["merged", "one", "run", "two"]


@pytest.mark.parametrize(
    ("model", "adapters", "percent"),
    [("MobileVLM_V2-1.7B", 121_110_528, 8.87), ("MobileVLM_V2-3B", 200_278_016, 7.41)],
)
def test_adapters_are_as_many_as_the_papers(model: str, adapters: int, percent: float) -> None:
    recipe = make_recipe(STAGES["lora"])
    size = count_parameters(CONFIGS[model], recipe)
    assert size.adapters == adapters
    assert 100 * size.adapters / size.language == pytest.approx(percent, abs=0.01)
    alone = estimate_memory(CONFIGS[model], recipe, size, 1)
    assert 4 * size.total < estimate_memory(CONFIGS[model], recipe, size, 8) + 4 * size.language < 2 * alone


@pytest.mark.parametrize(
    ("model", "stage", "train", "trained"),
    [
        ("MobileVLM-1.7B", "align", "projector", 18_936_832),
        ("MobileVLM-3B", "align", "projector", 28_913_920),
        ("MobileVLM_V2-1.7B", "align", "all", 1_364_297_728 + 6_316_032),
        ("MobileVLM_V2-3B", "instruct", "all", 2_701_560_320 + 9_205_760),
    ],
)
def test_stages_train_as_many_as_the_papers(model: str, stage: str, train: str, trained: int) -> None:
    recipe = make_recipe(STAGES[stage], {"train": train})
    assert count_parameters(CONFIGS[model], recipe).trained == trained


def test_adapters_of_another_model_are_refused(
    train_ref: Path, ckpt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(train_ref / "v2_lora")
    assert main(["merge", run, "-o", str(tmp_path / "a")]) == 1
    assert "give --base" in capsys.readouterr().err
    assert main(["merge", run, "-o", str(tmp_path / "a"), "--base", str(ckpt / "tiny-ldpnet")]) == 1
    assert "is of another model" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_build_of_adapters_says_what_to_do(
    train_ref: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", str(train_ref / "v2_lora"), "-o", str(tmp_path / "bundle")]) == 1
    assert "mobilevlm merge" in capsys.readouterr().err
