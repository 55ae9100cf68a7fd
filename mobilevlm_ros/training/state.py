# SPDX-License-Identifier: Apache-2.0
"""Checkpoints to resume from: PyTorch's distributed checkpoint, so any number of processes reads any other's.

`checkpoints/step-00000500/` appears only when it is complete; the newest `keep` remain. It holds the trained
weights and AdamW's state. Schedule, order of samples and dropout follow from the step, the seed and the
recipe.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from mobilevlm_ros.errors import TrainingError
from mobilevlm_ros.training.trainer import Trainer

CHECKPOINTS = "checkpoints"
_OPTIONS = StateDictOptions(ignore_frozen_params=True, strict=False)


def list_checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run folder, oldest first."""
    return sorted(path for path in (run / CHECKPOINTS).glob("step-*") if (path / "done.json").is_file())


def save_checkpoint(trainer: Trainer, run: Path, step: int, keep: int) -> Path:
    """Writes the state after `step` steps, whole or not at all. Raises TrainingError when the disk takes it
    not."""
    target = run / CHECKPOINTS / f"step-{step:08}"
    work = target.with_name(f".{target.name}")
    processes = trainer.processes
    try:
        if processes.first:
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
        processes.barrier()
        with warnings.catch_warnings():  # one process needs no process group, and that is meant
            warnings.simplefilter("ignore")
            state_dict_saver.save(_state(trainer), checkpoint_id=work, no_dist=not processes.many)
        processes.barrier()
        if processes.first:
            (work / "done.json").write_text(json.dumps({"step": step}))
            shutil.rmtree(target, ignore_errors=True)
            os.replace(work, target)
            for old in list_checkpoints(run)[:-keep]:
                shutil.rmtree(old)
    except (OSError, CheckpointException) as error:
        if processes.first:
            shutil.rmtree(work, ignore_errors=True)
        reason = " ".join(str(error).split())[:300]
        raise TrainingError(f"step {step}: the checkpoint {target} cannot be written: {reason}") from error
    return target


def load_checkpoint(trainer: Trainer, path: Path) -> int:
    """Puts a checkpoint's state into `trainer`. Returns the number of steps done. Raises TrainingError."""
    state = _state(trainer)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state_dict_loader.load(state, checkpoint_id=path, no_dist=not trainer.processes.many)
        step = int(json.loads((path / "done.json").read_text())["step"])
    except (OSError, ValueError, KeyError, RuntimeError, CheckpointException) as error:
        reason = " ".join(str(error).split())[:300]
        raise TrainingError(
            f"{path} cannot be read: {reason}; remove it to go on from the one before"
        ) from error
    set_model_state_dict(trainer.objective, state["model"], options=_OPTIONS)
    set_optimizer_state_dict(trainer.objective, trainer.optimizer, state["optimizer"], options=_OPTIONS)
    return step


def trained_tensors(trainer: Trainer, *, whole: bool = False) -> dict[str, Tensor]:
    """The trained parameters (`whole`: all) on the CPU, complete on the first process; call it on all."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=not whole)
    tensors = get_model_state_dict(trainer.objective, options=options)
    return {n.removeprefix("model."): value for n, value in tensors.items() if isinstance(value, Tensor)}


def _state(trainer: Trainer) -> dict[str, Any]:
    if not trainer.optimizer.state:  # a loaded state needs places to go to: a step of rate 0 makes them
        for parameter in trainer.trained:
            parameter.grad = torch.zeros_like(parameter)
        for group in trainer.optimizer.param_groups:
            group["lr"] = 0.0
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        for state in trainer.optimizer.state.values():
            for value in state.values():
                value.zero_()
    return {
        "model": get_model_state_dict(trainer.objective, options=_OPTIONS),
        "optimizer": get_optimizer_state_dict(trainer.objective, trainer.optimizer, options=_OPTIONS),
    }
