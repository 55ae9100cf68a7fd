# SPDX-License-Identifier: Apache-2.0
"""What comes out of a run: a language model's checkpoint, merged adapters, samples of what a model says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from mobilevlm_ros.checkpoints.checkpoint import save
from mobilevlm_ros.checkpoints.hub import locate
from mobilevlm_ros.checkpoints.output import CHECKPOINT, METADATA, is_ours, writing_tensors
from mobilevlm_ros.engine.greedy import decode_greedily
from mobilevlm_ros.engine.torch.backend import TorchLanguage
from mobilevlm_ros.errors import CheckpointError, RecipeError
from mobilevlm_ros.files.atomic import check_place
from mobilevlm_ros.files.atomic_directory import new_directory
from mobilevlm_ros.files.hub_cache import find_clip_directory
from mobilevlm_ros.files.json_fields import read_json
from mobilevlm_ros.model.mobilevlm import MobileVLM
from mobilevlm_ros.processing.prompt_template import TEMPLATES
from mobilevlm_ros.processing.tokenizer import TOKENIZER
from mobilevlm_ros.training.data.conversations import gather_images, spoken
from mobilevlm_ros.training.data.dataset import ConversationDataset
from mobilevlm_ros.training.lora import ADAPTER_CONFIG, PROJECTOR_FILE, is_adapter, load_adapters
from mobilevlm_ros.training.objective import LanguageModel
from mobilevlm_ros.training.recipe import RECIPE, make_recipe, read_yaml
from mobilevlm_ros.training.start import Start, is_vision_language, load_start, open_start
from mobilevlm_ros.training.trainer import Trainer

SAMPLE_TOKENS = 40


def save_language_model(model: LanguageModel, start: Start, path: Path) -> None:
    """Writes a language model's checkpoint directory: what `align` starts from. One that this package has
    written is replaced. Raises CheckpointError."""
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    description = {**read_json(start.path / "config.json"), "torch_dtype": "float32"}
    with new_directory(path, CHECKPOINT, overwrite=is_ours(path)) as work, writing_tensors(path):
        save_file(tensors, work / "model.safetensors", metadata=METADATA)
        (work / "config.json").write_text(json.dumps(description, indent=2) + "\n")
        shutil.copyfile(start.tokenizer, work / TOKENIZER)


def merge(
    run: Path,
    output: Path,
    *,
    base: str | None = None,
    vision_tower: str | None = None,
    tokenizer: Path | None = None,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Writes the checkpoint that adapters (`run`: ours, or the official code's) make with their base.

    `base` is by default the one that adapter_config.json names; it may be a bare language model, whose tower
    is
    then the CLIP directory of the adapters' config.json, or `vision_tower`. Raises CheckpointError,
    RecipeError.
    """
    if not is_adapter(run):
        raise CheckpointError(
            f"{run} holds no adapters ({ADAPTER_CONFIG}); give the run folder of `train lora`"
        )
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise RecipeError(f"{output} exists; name another checkpoint directory")
    check_place(output, parents=True)
    described = read_json(run / "config.json")
    name = base or str(read_json(run / ADAPTER_CONFIG).get("base_model_name_or_path") or "")
    path = locate(name)
    if not (path / "config.json").is_file():
        raise CheckpointError(f"the adapters of {run} belong to {name!r}, which is not here; give --base")
    projector = run / PROJECTOR_FILE
    tokenizers = (f / TOKENIZER for f in (path, run) if (f / TOKENIZER).is_file())
    settings = {
        "stage": "lora",
        "model": {
            "path": str(path),
            "vision_tower": vision_tower or _tower(run, path, described),
            "projector_type": str(described.get("mm_projector_type", "ldpnetv2")),
            "projector": str(projector) if projector.is_file() else "",
            "tokenizer": str(tokenizer or next(tokenizers, "")),
        },
        "data": {"aspect": "pad" if described.get("image_aspect_ratio") == "pad" else "crop"},
    }
    start = open_start(make_recipe(settings, source=str(run)))
    model = load_start(start)
    assert isinstance(model, MobileVLM)
    merged = load_adapters(model, run).merge_and_unload()
    assert isinstance(merged, MobileVLM)
    save(merged.to(dtype), merged.config, start.tokenizer, output)
    return output


def _tower(run: Path, base: Path, described: dict[str, object]) -> str:
    """The tower that the adapters were trained with: as our recipe says, else as the official code does,
    which
    takes the CLIP directory whatever the base holds. Empty: the base's own."""
    if (run / RECIPE).is_file():
        return str(read_yaml(run / RECIPE).get("model", {}).get("vision_tower", ""))
    name = described.get("mm_vision_tower")
    clip = next((found for folder in (run, base) if (found := find_clip_directory(folder, name))), None)
    if clip is None and not is_vision_language(base):
        raise CheckpointError(
            f"the tower {name!r} is not on this machine; give --vision-tower, its CLIP directory"
        )
    return str(clip or "")


@torch.no_grad()
def say_sample(trainer: Trainer, dataset: ConversationDataset, run: Path, step: int) -> str:
    """What the model answers now to the first question of the last sample; kept in samples.jsonl too."""
    model, sample = trainer.objective.model, dataset.samples[-1]
    item, tokenizer = dataset[len(dataset) - 1], dataset.tokenizer
    turns = spoken(type(sample)(sample.id, tuple(gather_images(sample)), sample.images))
    template = TEMPLATES[dataset.template]
    question = "<image>" if dataset.template == "plain" else turns[0][1]
    prompt = template.render([(question, None)])
    if not isinstance(model, MobileVLM):
        return f"step {step}: samples of text-only stages are not written yet"
    model.eval()
    ids = tokenizer.encode_prompt(prompt) if sample.images else tokenizer.encode(prompt)
    images = None
    if sample.images and item.pixels is not None:
        images = model.encode_images(torch.from_numpy(item.pixels).to(trainer.device))
    embeddings = model.embed_prompt(ids, images).float().cpu().numpy()
    language = TorchLanguage(model)
    cache = language.new_cache(capacity=min(embeddings.shape[1] + SAMPLE_TOKENS, language.max_length))
    first = language.forward(embeddings, cache)[0, -1]
    answer, _ = decode_greedily(language, cache, first, (tokenizer.eos_id,), SAMPLE_TOKENS)
    text = tokenizer.decode(answer).strip()
    line = {"step": step, "sample": sample.id, "question": turns[0][1], "taught": turns[1][1], "says": text}
    with (run / "samples.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return f"step {step}: sample {sample.id}, {turns[0][1]!r}: {text!r} (taught: {turns[1][1]!r})"
