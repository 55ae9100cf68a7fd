# SPDX-License-Identifier: Apache-2.0
"""A training run: a folder that holds its recipe, metrics, checkpoints and result, and can be gone on
with."""

from __future__ import annotations

import dataclasses
import functools
import platform
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.utils.checkpoint import checkpoint

from mobilevlm_ros.checkpoints.checkpoint import save
from mobilevlm_ros.checkpoints.output import write_torch_file
from mobilevlm_ros.errors import MobileVLMError, RecipeError, TrainingError
from mobilevlm_ros.files.atomic import check_place, make_directory, write_file
from mobilevlm_ros.files.json_fields import read_json, write_json
from mobilevlm_ros.files.kinds import COUNT
from mobilevlm_ros.model.config import MobileVLMConfig
from mobilevlm_ros.model.mobilevlm import MobileVLM
from mobilevlm_ros.processing.tokenizer import TOKENIZER
from mobilevlm_ros.training.data.dataset import ConversationDataset, Pictures, open_dataset
from mobilevlm_ros.training.data.shards import TokenDataset
from mobilevlm_ros.training.lora import ADAPTER_CONFIG, save_adapters
from mobilevlm_ros.training.objective import LanguageModel, Objective
from mobilevlm_ros.training.parallel import Processes
from mobilevlm_ros.training.recipe import RECIPE, Recipe, read_yaml
from mobilevlm_ros.training.run.estimate import count_parameters, estimate_memory
from mobilevlm_ros.training.run.metrics import Metrics, check_tensorboard, plot_loss
from mobilevlm_ros.training.run.plan import Plan
from mobilevlm_ros.training.run.results import save_language_model, say_sample
from mobilevlm_ros.training.run.state import (
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
    trained_tensors,
)
from mobilevlm_ros.training.start import Start, load_start, open_start, random_start
from mobilevlm_ros.training.trainer import Trainer, choose_trained
from mobilevlm_ros.version import __version__

RUN, RESULT = "run.json", "checkpoint"


def check_output(run: Path, resume: bool) -> None:
    """Raises RecipeError when the run folder may not be made, or is not there to go on with; OutputError
    when nothing can be written there."""
    if resume and not (run / RECIPE).is_file():
        raise RecipeError(f"{run} holds no run to resume; leave --resume out to begin one")
    if not resume and run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise RecipeError(f"{run} exists; name another run folder, or --resume to go on with the run in it")
    check_place(run / RECIPE, parents=True)


def resumed_recipe(run: Path) -> dict[str, Any]:
    """The recipe that a run folder was made with."""
    check_output(run, resume=True)
    return read_yaml(run / RECIPE)


def train(
    recipe: Recipe, run: Path, *, resume: bool = False, dry_run: bool = False, bar: bool = False
) -> int:
    """Trains as the recipe says, into the folder `run`. Returns 0.

    Everything is checked before the first step. Raises a MobileVLMError; after the first step it names the
    step and the last good checkpoint.
    """
    processes = Processes.join()
    try:
        return _train(recipe, run, resume, dry_run, bar, processes)
    finally:
        processes.leave()


def _train(recipe: Recipe, run: Path, resume: bool, dry_run: bool, bar: bool, processes: Processes) -> int:
    def report(text: str) -> None:
        if processes.first:
            print(text, file=sys.stderr)

    if resume:
        began = read_json(run / RUN, RecipeError, "begin again in another run folder").get("processes")
        if not COUNT.fits(began) or not began:
            raise RecipeError(f"{run / RUN} does not say how many processes began; begin another run folder")
        recipe = _share_batches(recipe, recipe.batch.accumulation * began, processes.count)
    if recipe.run.tensorboard:
        check_tensorboard()
    start = open_start(recipe)
    dataset = _open_data(recipe, start, report)
    plan = Plan(dataset, recipe, recipe.batch.accumulation * processes.count)
    size = count_parameters(start.config, recipe)
    memory = estimate_memory(start.config, recipe, size, processes.count)
    report(
        f"{start.path}: {size.describe()}\n{len(dataset):,} samples, {plan.steps:,} steps of "
        f"{recipe.batch.size} x {recipe.batch.accumulation} x {processes.count} samples; about "
        f"{memory / 2**30:.1f} GiB of memory per process"
    )
    if dry_run:
        return 0
    if processes.first and not resume:
        _write_run(run, recipe, start, processes)
    processes.barrier()
    if recipe.stage == "pretrain-llm":
        model: MobileVLM | LanguageModel = random_start(start, recipe.run.seed)
    else:
        model = load_start(start, recipe.run.seed)
    choose_trained(model, recipe)
    if recipe.run.gradient_checkpointing:
        for layer in model.model.layers:
            layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)
    if recipe.run.compile:
        for layer in model.model.layers:
            layer.compile(dynamic=True)
    trainer = Trainer(Objective(model), recipe, plan.steps, processes)
    first = 0
    kept = list_checkpoints(run)
    if resume and kept:
        first = load_checkpoint(trainer, kept[-1])
        report(f"going on from step {first}: {kept[-1]}")
    try:
        _loop(trainer, plan, run, first, bar)
        _finish(trainer, start, run, report)
    except MobileVLMError as error:
        raise TrainingError(f"{error}. {_last_good(run)}") from error
    except (RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        if processes.many and isinstance(error, RuntimeError):  # what gloo and NCCL raise when a peer is gone
            reason = f"another process of the run ended, or could not be reached ({reason})"
        raise TrainingError(f"the run stopped: {reason}. {_last_good(run)}") from error
    return 0


def _loop(trainer: Trainer, plan: Plan, run: Path, first: int, bar: bool) -> None:
    processes, settings, steps = trainer.processes, trainer.recipe.run, plan.steps
    ignored = 0
    with (
        Metrics(run, first, steps, bar=bar, tensorboard=settings.tensorboard)
        if processes.first
        else _Silent() as metrics
    ):
        for number, batches in enumerate(plan.load(first, steps, processes), first):
            for warning in (text for batch in batches for text in batch.warnings):
                ignored += 1
                metrics.say(f"step {number}: {warning}")
            done = trainer.step(number, batches)
            metrics.add(number, done, processes.total(done.taught))
            finished = number + 1
            if finished % settings.save_every == 0 or finished == steps:
                save_checkpoint(trainer, run, finished, settings.keep)
            due = settings.sample_every and finished % settings.sample_every == 0 and not processes.many
            if due and isinstance(plan.dataset, ConversationDataset):
                metrics.say(say_sample(trainer, plan.dataset, run, finished))
        if ignored:
            metrics.say(f"{ignored} samples taught nothing; they are named above")


class _Silent:
    """What the other processes show: nothing."""

    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *_: object) -> None: ...

    def add(self, *_: object) -> None: ...

    def say(self, text: str) -> None: ...


def _open_data(recipe: Recipe, start: Start, report: Any) -> ConversationDataset | TokenDataset:
    data = recipe.data
    if not data.path:
        raise RecipeError("the recipe names no data; give --data, a file of conversations")
    if recipe.stage == "pretrain-llm":
        return TokenDataset(Path(data.path), start.tokenizer, data.max_length, data.mixture)
    pictures = Pictures.of(start.config) if isinstance(start.config, MobileVLMConfig) else None
    return open_dataset(
        Path(data.path),
        start.tokenizer,
        data.template,
        data.max_length,
        start.language.context_length,
        images=Path(data.images) if data.images else Path(data.path).parent,
        pictures=pictures,
        errors=data.errors,
        long_samples=data.long_samples,
        report=report,
    )


def _share_batches(recipe: Recipe, batches: int, processes: int) -> Recipe:
    """The recipe with the accumulation that keeps a step's batches when the number of processes has
    changed."""
    if batches % processes:
        raise RecipeError(
            f"the run takes {batches} batches a step, which {processes} processes "
            "cannot share; use a divisor of it"
        )
    return dataclasses.replace(
        recipe, batch=dataclasses.replace(recipe.batch, accumulation=batches // processes)
    )


def _write_run(run: Path, recipe: Recipe, start: Start, processes: Processes) -> None:
    make_directory(run)
    write_file(run / RECIPE, yaml.safe_dump(recipe.to_dict(), sort_keys=False).encode())
    about = {
        "command": sys.argv,
        "processes": processes.count,
        "device": str(processes.device),
        "start": str(start.path.resolve()),
        "mobilevlm_ros": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.node()} {platform.machine()}",
    }
    write_json(run / RUN, about)


def _last_good(run: Path) -> str:
    kept = list_checkpoints(run)
    if not kept:
        return "There is no checkpoint yet: begin again in another run folder"
    return f"The last good checkpoint is {kept[-1]}; once the cause is mended, --resume goes on from it"


def _finish(trainer: Trainer, start: Start, run: Path, report: Any) -> None:
    """Writes the result and what shows how it went."""
    recipe = trainer.recipe
    tensors = trained_tensors(trainer, whole=recipe.train != "lora")
    if not trainer.processes.first:
        return
    plot_loss(run)
    if recipe.train == "lora":
        assert isinstance(start.config, MobileVLMConfig)
        config = {**start.config.to_json_dict(), "mm_vision_tower": start.config.vision_tower}
        base = str(start.path.resolve()) if start.path.is_dir() else recipe.model.path
        save_adapters(tensors, recipe.lora, config, base, run)
        write_file(run / TOKENIZER, start.tokenizer.read_bytes(), overwrite=True)
        report(f"{run / ADAPTER_CONFIG}: done; now: mobilevlm merge {run} -o CHECKPOINT")
        return
    with torch.device("meta"):
        whole: MobileVLM | LanguageModel = LanguageModel(start.language)
        if isinstance(start.config, MobileVLMConfig):
            whole = MobileVLM(start.config)
    whole.load_state_dict(tensors, assign=True, strict=False)
    if isinstance(whole, MobileVLM):
        projector = {n: v for n, v in tensors.items() if ".mm_projector." in n}
        write_torch_file(projector, run / "mm_projector.bin")
        save(whole, dataclasses.replace(whole.config, own_vision=True), start.tokenizer, run / RESULT)
    else:
        save_language_model(whole, start, run / RESULT)
    report(f"{run / RESULT}: done")
