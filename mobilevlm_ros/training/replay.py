# SPDX-License-Identifier: Apache-2.0
"""Runs a stage exactly as a reference file of the official trainer says, for comparison.

The file holds `arguments` (the official trainer's) and `steps` with the `samples` of each batch (a VLM
stage),
or `micro_steps` (chat SFT with FastChat). In paths `<set>` is the file's folder and `<ckpt>` a folder of
checkpoints.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mobilevlm_ros.errors import DataError, RecipeError
from mobilevlm_ros.files.json_fields import read_json
from mobilevlm_ros.model.config import MobileVLMConfig
from mobilevlm_ros.training.data.batch import Collate
from mobilevlm_ros.training.data.conversations import read_conversations
from mobilevlm_ros.training.data.dataset import ConversationDataset, Pictures
from mobilevlm_ros.training.data.pictures import FolderPictures
from mobilevlm_ros.training.lora import PREFIX
from mobilevlm_ros.training.objective import Objective
from mobilevlm_ros.training.recipe import Recipe, make_recipe
from mobilevlm_ros.training.start import load_start, open_start
from mobilevlm_ros.training.trainer import Trainer, choose_trained

# What the reference runs wrote, by the names it has in the set.
_WORK = {"v1_align/mm_projector.bin": "v1_stage1_mm_projector.bin", "v2_align": "v2_stage1"}


def replay(stage_file: Path, checkpoints: Path) -> dict[str, Any]:
    """{"steps": [{"loss", "lr", "grad_norm"}], "changed": [names], "delta_norm": {name: norm of the change}}.

    One entry of `steps` per batch: its loss and the norm of the gradients accumulated so far, both divided by
    the accumulation steps. Raises RecipeError or DataError for a file that is no reference.
    """
    reference = _read(stage_file)
    folder = stage_file.resolve().parent
    chat = "micro_steps" in reference
    recipe = _recipe(reference["arguments"], folder, checkpoints, chat)
    start = open_start(recipe)
    model = load_start(start, recipe.run.seed)
    choose_trained(model, recipe)
    prefix = PREFIX if recipe.train == "lora" else ""
    if recipe.train == "lora":
        version = "v2" if "v2" in recipe.model.projector_type else "v1"
        _set_adapters(model, folder / f"{version}_lora_init.npz")
    samples, problems = read_conversations(Path(recipe.data.path))
    if problems:
        raise DataError(f"{recipe.data.path}: {problems[0]}")
    place = {sample.id: index for index, sample in enumerate(samples)}
    dataset = ConversationDataset(
        samples,
        start.tokenizer,
        recipe.data.template,
        recipe.data.max_length,
        source=FolderPictures(Path(recipe.data.images)),
        pictures=Pictures.of(start.config) if isinstance(start.config, MobileVLMConfig) else None,
    )
    collate = Collate(dataset.tokenizer.unk_id, recipe.data.max_length, pad_to_max=chat)
    order = [step["samples"] for step in reference["micro_steps" if chat else "steps"]]
    batches = [collate([dataset[place[name]] for name in names]) for names in order]
    size = recipe.batch.accumulation
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    trainer = Trainer(Objective(model), recipe, len(batches) // size)
    steps: list[dict[str, Any]] = []
    for number in range(len(batches) // size):

        def watch(loss: float) -> None:
            steps.append({"loss": loss, "grad_norm": trainer.gradient_norm()})

        done = trainer.step(number, batches[number * size : (number + 1) * size], watch)
        for entry in steps[-size:]:
            entry["lr"] = done.rates[0] if chat else done.rates
    change = {
        prefix + name: float((value.detach() - before[name]).double().norm())
        for name, value in model.named_parameters()
    }
    moved = {name: norm for name, norm in change.items() if norm > 0}
    return {"steps": steps, "changed": sorted(moved), "delta_norm": moved}


def _read(path: Path) -> dict[str, Any]:
    data = read_json(path, RecipeError, "give a stage's reference file")
    if "arguments" not in data or not {"steps", "micro_steps"} & set(data):
        raise RecipeError(
            f"{path} is no reference of a stage: it needs 'arguments', and 'steps' or 'micro_steps'"
        )
    return data


def _recipe(given: dict[str, Any], folder: Path, checkpoints: Path, chat: bool) -> Recipe:
    def path(name: str, default: str = "") -> str:
        text = str(given.get(name) or default)
        work = re.match(r"<work>/(.*)", text)
        if work:
            text = f"<set>/{_WORK.get(work[1], work[1])}"
        return text.replace("<set>", str(folder)).replace("<ckpt>", str(checkpoints))

    lora = bool(given.get("lora_enable"))
    plain = given.get("version") == "plain"
    projector_only = bool(given.get("tune_mm_mlp_adapter"))
    train = "language" if chat else "lora" if lora else "projector" if projector_only else "all"
    settings = {
        "stage": "sft" if chat else "lora" if lora else "align" if plain else "instruct",
        "train": train,
        "model": {
            "path": path("model_name_or_path", "<set>/llm"),
            "vision_tower": path("vision_tower"),
            "projector_type": given.get("mm_projector_type", "ldpnetv2"),
            "projector": path("pretrain_mm_mlp_adapter"),
            "tokenizer": str(folder / "llm" / "tokenizer.model"),
        },
        "data": {
            "path": path("data_path", "<set>/chat.json"),
            "images": path("image_folder"),
            "template": "plain" if plain else "v1",
            "max_length": given.get("model_max_length", 2048),
            "aspect": "pad" if given.get("image_aspect_ratio") == "pad" else "crop",
            "workers": 0,
        },
        "optimizer": {
            "learning_rate": given.get("learning_rate", given.get("lr")),
            "projector_learning_rate": given.get("mm_projector_lr"),
            "weight_decay": given.get("weight_decay", 0.0),
            "clip": given.get("max_grad_norm", 0.0),
        },
        "schedule": {"warmup_ratio": given.get("warmup_ratio", 0.0)},
        "batch": {
            "size": given.get("per_device_train_batch_size", given.get("per_device_batch")),
            "accumulation": given.get("gradient_accumulation_steps", given.get("accumulation", 1)),
        },
        "run": {"precision": "fp32"},
    }
    if lora:
        settings["lora"] = {
            "r": given["lora_r"],
            "alpha": given["lora_alpha"],
            "dropout": given["lora_dropout"],
        }
    return make_recipe(settings, source="arguments")


def _set_adapters(model: nn.Module, file: Path) -> None:
    """The reference's random start of the adapters."""
    if not file.is_file():
        raise RecipeError(
            f"{file} does not exist; a LoRA stage's reference has its adapters' start beside it"
        )
    own = dict(model.named_parameters())
    values = np.load(file, allow_pickle=False)
    with torch.no_grad():
        for name in values:
            own[name.removeprefix(PREFIX)].copy_(torch.from_numpy(values[name]))
