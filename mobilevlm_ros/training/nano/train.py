# SPDX-License-Identifier: Apache-2.0
"""Trains nano, the embedded default: a small MobileVLM, from random weights, on simulated scenes.

Its stages are not the paper's (section 4: language pretraining, chat tuning, alignment, instruction tuning).
There is no pretrained tower or language model to start from, and at this size one stage teaches seeing and
answering at once. The second teaches what the model must not pretend to know, pairs of pictures, and
conversations; the third is more of it, for lists of choices.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from mobilevlm_ros.checkpoints.checkpoint import load, save
from mobilevlm_ros.checkpoints.output import CHECKPOINT
from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.files.atomic import write_file
from mobilevlm_ros.files.atomic_directory import check_directory
from mobilevlm_ros.model.mobilevlm import MobileVLM
from mobilevlm_ros.processing.tokenizer import TOKENIZER, Tokenizer
from mobilevlm_ros.training.nano.honest_stage import HonestLessons
from mobilevlm_ros.training.nano.recipe import STAGES, Recipe, ScenesStage, Stage, nano_config
from mobilevlm_ros.training.nano.scenes_stage import ScenesLessons
from mobilevlm_ros.training.nano.vocabulary import train_tokenizer

log = logging.getLogger(__name__)


class Lessons(Protocol):
    """What a stage teaches. `heads` learn beside the model and are thrown away."""

    heads: nn.Module

    def trained(self) -> list[nn.Parameter]: ...
    def compile(self) -> None: ...
    def draw(self, step: int) -> Any: ...
    def loss(self, rows: Any) -> dict[str, Tensor]: ...


def train_nano(
    output: Path,
    work: Path,
    recipe: Recipe,
    *,
    start: Path | None = None,
    threads: int = 0,
    resume: bool = True,
    compiled: bool = True,
    workers: int = 1,
    checkpoint_every: int = 250,
    overwrite: bool = False,
) -> Path:
    """Train and write a checkpoint directory to `output`; `overwrite` replaces one that is there.

    `work` holds the pictures, drawn by `workers` processes, and the resumable state. `start` is a checkpoint
    that has the first stage behind it: only the later ones are trained.

    Killed and started again with the same arguments, it goes on where the last state was kept. `compiled`
    needs a C++ compiler and takes a minute before the first step.
    """
    if threads:
        torch.set_num_threads(threads)
    check_directory(output, CHECKPOINT, overwrite=overwrite)
    work.mkdir(parents=True, exist_ok=True)
    if start is None:
        torch.manual_seed(recipe.scenes.seed)
        tokenizer_file = work / TOKENIZER
        if not tokenizer_file.exists():
            train_tokenizer(tokenizer_file)
        tokenizer = Tokenizer(tokenizer_file)
        model = MobileVLM(nano_config(tokenizer.vocab_size))
        model.initialize()
    else:
        tokenizer_file = start / TOKENIZER
        tokenizer = Tokenizer(tokenizer_file)
        model = load(start).float()
    # What decides the result. A kept state of another result must not be taken for this one's.
    told = {**asdict(recipe), "from": None if start is None else _digest(start)}
    state_file = work / "state.pt"
    state = _read_state(state_file, told) if resume and state_file.exists() else None
    stages: tuple[str, ...] = STAGES if start is None else STAGES[1:]
    if state is not None:
        model.load_state_dict(state["model"])
        stages = stages[stages.index(state["stage"]) :]
    for name in stages:
        stage: Stage = getattr(recipe, name)
        if stage.steps:
            lessons_of: Any = ScenesLessons if isinstance(stage, ScenesStage) else HonestLessons
            lessons: Lessons = lessons_of(stage, model, tokenizer, work, workers)
            run = _Run(name, stage, lessons, model, work, told, checkpoint_every)
            run.train(state if state is not None and state["stage"] == name else None, compiled)
    kept = (json.dumps(told, indent=2) + "\n").encode()
    save(
        model.eval(),
        model.config,
        tokenizer_file,
        output,
        overwrite=overwrite,
        more={"recipe.json": kept},
    )
    return output


class _Run:
    """One stage, from its first step or from where a state was kept."""

    def __init__(
        self,
        name: str,
        stage: Stage,
        lessons: Lessons,
        model: MobileVLM,
        work: Path,
        told: dict[str, Any],
        checkpoint_every: int,
    ) -> None:
        self.name, self.stage, self.lessons, self.model = name, stage, lessons, model
        self.work, self.told, self.checkpoint_every = work, told, checkpoint_every
        self.trained = lessons.trained()
        self.optimizer = torch.optim.AdamW(
            self.trained, stage.learning_rate, betas=(0.9, 0.98), weight_decay=stage.weight_decay
        )

    def train(self, state: dict[str, Any] | None, compiled: bool) -> None:
        first = 0
        if state is not None:
            self.lessons.heads.load_state_dict(state["heads"])
            self.optimizer.load_state_dict(state["optimizer"])
            first = state["step"]
            log.info("stage %s: going on from step %d", self.name, first)
        self.model.train()
        if compiled:
            self.lessons.compile()
        started = time.monotonic()
        with tqdm(total=self.stage.steps, initial=first, desc=self.name, unit="step") as bar:
            for step, rows in _ahead(self.lessons, first, self.stage.steps):
                told = self._step(step, rows)
                bar.update()
                if step % 20 == 0:
                    numbers = {name: round(value.item(), 4) for name, value in told.items()}
                    bar.set_postfix(numbers)
                    seconds = round(time.monotonic() - started)
                    note = {"stage": self.name, "step": step, **numbers, "seconds": seconds}
                    with open(self.work / "log.jsonl", "a") as file:
                        file.write(json.dumps(note) + "\n")
                if (step + 1) % self.checkpoint_every == 0 or step + 1 == self.stage.steps:
                    self._keep(step + 1)

    def _step(self, step: int, rows: Any) -> dict[str, Tensor]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.stage.rate(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported()):
            told = self.lessons.loss(rows)
        self.optimizer.zero_grad(set_to_none=True)
        told["loss"].backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        return told

    def _keep(self, step: int) -> None:
        state = {
            "stage": self.name,
            "model": self.model.state_dict(),
            "heads": self.lessons.heads.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": step,
            "recipe": self.told,
        }
        buffer = io.BytesIO()  # torch.save to a full disk would raise a bare RuntimeError
        torch.save(state, buffer)
        write_file(self.work / "state.pt", buffer.getvalue(), overwrite=True)


def _ahead(lessons: Lessons, first: int, last: int) -> Iterator[tuple[int, Any]]:
    """Rows of steps [first, last), the next ones prepared while the current ones train."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(lessons.draw, first)
        for step in range(first, last):
            rows, coming = coming.result(), pool.submit(lessons.draw, step + 1)
            yield step, rows


def _digest(checkpoint: Path) -> str:
    """Of the weights to start from."""
    digest = hashlib.sha256()
    for file in sorted(checkpoint.glob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _read_state(file: Path, told: dict[str, Any]) -> dict[str, Any]:
    """The state of a run with the same recipe. Raises CheckpointError for another's, or a damaged one."""
    try:
        state: dict[str, Any] = torch.load(file, weights_only=True)
        kept = state.get("recipe")
    except Exception as error:  # an unpickler that reads nonsense can raise anything
        raise CheckpointError(
            f"{file} is damaged, or not a training's state; --from-scratch begins anew"
        ) from error
    if kept != told:
        raise CheckpointError(
            f"{file} is the state of a training with another recipe; --from-scratch begins anew, "
            "--work DIR keeps both"
        )
    return state
