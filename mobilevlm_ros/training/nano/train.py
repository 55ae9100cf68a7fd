# SPDX-License-Identifier: Apache-2.0
"""Trains nano, the embedded default: a small MobileVLM, from random weights, on simulated scenes.

Differences from the official recipe (paper section 4): one stage instead of three, because there is no
pretrained tower or language model to start from, and a second loss that teaches the tower what each patch
shows. The heads of that loss are thrown away.
"""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from mobilevlm_ros.checkpoints.checkpoint import save
from mobilevlm_ros.checkpoints.output import CHECKPOINT
from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.files.atomic import write_file
from mobilevlm_ros.files.atomic_directory import check_directory
from mobilevlm_ros.model.config import LanguageConfig, MobileVLMConfig, VisionConfig
from mobilevlm_ros.model.mobilevlm import MobileVLM
from mobilevlm_ros.processing.image import IMAGE_MEAN, IMAGE_STD
from mobilevlm_ros.processing.tokenizer import Tokenizer
from mobilevlm_ros.simulation.questions import FAMILIES, ask
from mobilevlm_ros.simulation.render import Observation
from mobilevlm_ros.simulation.scene import KINDS, PAINTS
from mobilevlm_ros.training.nano.packing import IGNORE, Batch, Packer, Turn
from mobilevlm_ros.training.nano.scenes import OPEN, SceneSet, clutter, render_scenes
from mobilevlm_ros.training.nano.vocabulary import train_tokenizer

log = logging.getLogger(__name__)

FIRST_TRAINING_SEED = (
    1_000_000  # the demo, the tests and the evaluation use seeds outside of the training range
)
_COLORS = (*PAINTS, "orange")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result. Kept with the checkpoint."""

    steps: int = 2800
    batch: int = 32  # pictures
    length: int = 352  # positions per picture: the prompt's opening, the image, and about ten questions
    scenes: int = 60_000
    learning_rate: float = 1.5e-3
    warmup: int = 200  # steps
    decay: float = 0.35  # share of the steps over which the rate falls linearly to zero
    weight_decay: float = 0.05
    patch_loss: float = 1.0
    clutter: float = 0.05  # share of pictures that are no scene
    second_turns: float = 0.15
    seed: int = 1

    def rate(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, constant, linear decay."""
        left = (self.steps - step) / max(1.0, self.decay * self.steps)
        return self.learning_rate * min(1.0, (step + 1) / self.warmup, max(left, 0.0))


def nano_config(vocab_size: int) -> MobileVLMConfig:
    """The official architecture at a size that a laptop's CPU trains in two hours."""
    return MobileVLMConfig(
        vision=VisionConfig(
            image_size=144,
            patch_size=12,
            hidden_size=192,
            intermediate_size=768,
            num_hidden_layers=5,
            num_attention_heads=6,
        ),
        language=LanguageConfig(
            vocab_size=vocab_size,
            hidden_size=160,
            intermediate_size=448,
            num_hidden_layers=4,
            num_attention_heads=5,
            num_key_value_heads=5,
        ),
        projector_type="ldpnet",
    )


class PatchHeads(nn.Module):
    """Reads kind, colour and nearness of what each patch shows from the tower's features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleList(nn.Linear(width, size) for size in (len(KINDS) + 1, len(_COLORS) + 1, 3))

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """features [B, P, D]; labels i64 [B, P, 3]. The mean cross-entropy; background counts a tenth."""
        hidden = self.norm(features).float()
        weight = torch.where(labels[..., 0] == 0, 0.1, 1.0).flatten()
        total = hidden.new_zeros(())
        for index, head in enumerate(self.heads):
            target = labels[..., index].flatten()
            loss = F.cross_entropy(head(hidden).flatten(0, 1), target, ignore_index=IGNORE, reduction="none")
            total = total + (loss * weight).sum() / (weight * (target != IGNORE)).sum().clamp(min=1)
        return total / len(self.heads)


class Curriculum:
    """Draws the batch of any step from (seed, step) alone: a resumed run sees what an unbroken one sees."""

    def __init__(self, recipe: Recipe, scenes: SceneSet, packer: Packer) -> None:
        self.recipe, self.scenes, self.packer = recipe, scenes, packer

    def draw(self, step: int) -> tuple[Tensor, Tensor, Batch]:
        """Pixels u8 [B, S, S, 3], patch labels i64 [B, P, 3], packed conversations."""
        recipe, scenes = self.recipe, self.scenes
        rng = np.random.default_rng([recipe.seed, step])
        chosen = rng.integers(len(scenes), size=recipe.batch)
        pixels = scenes.pixels[chosen].copy()
        patches = np.stack([self._patch_targets(i) for i in chosen])
        for row in np.flatnonzero(rng.random(recipe.batch) < recipe.clutter):
            pixels[row] = clutter(rng, pixels.shape[1])
            patches[row] = IGNORE
        samples = [self._conversations(scenes.observations[i], rng) for i in chosen]
        return torch.from_numpy(pixels), torch.from_numpy(patches), self.packer.pack(samples, recipe.length)

    def _patch_targets(self, index: int) -> np.ndarray:
        table = np.full((256, 3), IGNORE, np.int64)
        table[0] = 0
        for number, seen in enumerate(self.scenes.observations[index].seen, 1):
            thing = seen.thing
            table[number] = KINDS.index(thing.kind) + 1, _COLORS.index(thing.color) + 1, 1 + thing.is_near
        table[OPEN] = IGNORE
        return table[self.scenes.patches[index].ravel()]

    def _conversations(self, observation: Observation, rng: np.random.Generator) -> Iterator[list[Turn]]:
        """Conversations without end, every family in turn; some have a second turn."""
        open_turns: list[Turn] = []
        while True:
            for family in rng.permutation(FAMILIES):
                exchange = ask(observation, str(family), rng)
                if exchange is None:
                    continue
                open_turns.append((exchange.question, exchange.answer))
                if len(open_turns) == 2 or rng.random() >= self.recipe.second_turns:
                    yield open_turns
                    open_turns = []

    def ahead(self, first: int, last: int) -> Iterator[tuple[int, tuple[Tensor, Tensor, Batch]]]:
        """Batches of steps [first, last), the next one prepared while the current one trains."""
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(self.draw, first)
            for step in range(first, last):
                batch, coming = coming.result(), pool.submit(self.draw, step + 1)
                yield step, batch


def losses(
    model: MobileVLM, heads: PatchHeads, pixels: Tensor, patches: Tensor, batch: Batch, packer: Packer
) -> tuple[Tensor, Tensor, Tensor]:
    """Answer loss, patch loss, and the share of answer tokens predicted right."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGE_MEAN, IMAGE_STD))
    normal = (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std
    features = model.encode_features(normal)
    ids = torch.from_numpy(batch.ids)
    labels = torch.from_numpy(batch.labels)
    embeddings = model.embed_tokens(ids.clamp(min=0))
    image = model.project(features).to(embeddings.dtype)
    spliced = torch.cat((embeddings[:, : packer.image_start], image, embeddings[:, packer.image_end :]), 1)
    hidden = model.hidden_states(
        spliced, positions=torch.from_numpy(batch.positions), mask=torch.from_numpy(batch.mask())
    )
    taught = labels != IGNORE
    chosen, target = model.lm_head(hidden[taught]).float(), labels[taught]
    accuracy = (chosen.argmax(-1) == target).float().mean()
    return F.cross_entropy(chosen, target), heads(features, patches), accuracy


def train_nano(
    output: Path,
    work: Path,
    recipe: Recipe,
    *,
    threads: int = 0,
    resume: bool = True,
    compiled: bool = True,
    workers: int = 1,
    checkpoint_every: int = 250,
    overwrite: bool = False,
) -> Path:
    """Train and write a checkpoint directory to `output`; `overwrite` replaces one that is there.

    `work` holds the scenes, rendered by `workers` processes, and the resumable state.

    Killed and started again with the same arguments, it goes on where the last state was kept. `compiled`
    needs a C++ compiler, takes a minute before the first step, and pays for itself within a hundred.
    """
    if threads:
        torch.set_num_threads(threads)
    check_directory(output, CHECKPOINT, overwrite=overwrite)
    torch.manual_seed(recipe.seed)
    work.mkdir(parents=True, exist_ok=True)
    tokenizer_file = work / "tokenizer.model"
    if not tokenizer_file.exists():
        train_tokenizer(tokenizer_file)
    tokenizer = Tokenizer(tokenizer_file)
    config = nano_config(tokenizer.vocab_size)
    model = MobileVLM(config)
    model.initialize()
    heads = PatchHeads(config.vision.hidden_size)
    vision = config.vision
    scenes = render_scenes(
        FIRST_TRAINING_SEED, recipe.scenes, vision.image_size, vision.patch_size, cache=work, workers=workers
    )
    packer = Packer(tokenizer, config.num_image_tokens)
    trained = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(
        trained, recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )
    state_file, first = work / "state.pt", 0
    if resume and state_file.exists():
        state = _read_state(state_file, recipe)
        model.load_state_dict(state["model"])
        heads.load_state_dict(state["heads"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
        log.info("going on from step %d", first)
    started = time.monotonic()
    bar = tqdm(total=recipe.steps, initial=first, desc="training", unit="step")
    model.train()
    if compiled:  # once, for the run's fixed shapes: about four times the speed on a CPU
        model.model.forward = torch.compile(model.model.forward, dynamic=False)  # type: ignore[method-assign]
        model.encode_features = torch.compile(model.encode_features, dynamic=False)  # type: ignore[method-assign]
    for step, (pixels, patches, batch) in Curriculum(recipe, scenes, packer).ahead(first, recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported()):
            answer_loss, patch_loss, accuracy = losses(model, heads, pixels, patches, batch, packer)
        optimizer.zero_grad(set_to_none=True)
        (answer_loss + recipe.patch_loss * patch_loss).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        bar.update()
        if step % 20 == 0:
            note = {
                "step": step,
                "loss": round(answer_loss.item(), 4),
                "patch": round(patch_loss.item(), 4),
                "accuracy": round(accuracy.item(), 4),
                "seconds": round(time.monotonic() - started),
            }
            bar.set_postfix({key: note[key] for key in ("loss", "patch", "accuracy")})
            with open(work / "log.jsonl", "a") as file:
                file.write(json.dumps(note) + "\n")
        if (step + 1) % checkpoint_every == 0 or step + 1 == recipe.steps:
            state = {
                "model": model.state_dict(),
                "heads": heads.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step + 1,
                "recipe": asdict(recipe),
            }
            buffer = io.BytesIO()  # torch.save to a full disk would raise a bare RuntimeError
            torch.save(state, buffer)
            write_file(state_file, buffer.getvalue(), overwrite=True)
    bar.close()
    told = (json.dumps(asdict(recipe), indent=2) + "\n").encode()
    save(model.eval(), config, tokenizer_file, output, overwrite=overwrite, more={"recipe.json": told})
    return output


def _read_state(file: Path, recipe: Recipe) -> dict[str, Any]:
    """The state of a run with the same recipe. Raises CheckpointError for another's, or a damaged one."""
    try:
        state: dict[str, Any] = torch.load(file, weights_only=True)
        kept = state.get("recipe")
    except Exception as error:  # an unpickler that reads nonsense can raise anything
        raise CheckpointError(
            f"{file} is damaged, or not a training's state; --from-scratch begins anew"
        ) from error
    if kept != asdict(recipe):
        raise CheckpointError(
            f"{file} is the state of a training with another recipe; --from-scratch begins anew, "
            "--work DIR keeps both"
        )
    return state
