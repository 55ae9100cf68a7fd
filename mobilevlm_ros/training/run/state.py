# SPDX-License-Identifier: Apache-2.0
"""Checkpoints to resume from: PyTorch's distributed checkpoint, so any number of processes reads any other's.

`checkpoints/step-00000500/` appears only when it is complete; the newest `keep` remain. It holds the trained
weights and AdamW's state. Schedule, order of samples and dropout follow from the step, the seed and the
recipe.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
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
from mobilevlm_ros.files.atomic_directory import DirectoryKind, new_directory, remove_directory
from mobilevlm_ros.training.parallel import Processes
from mobilevlm_ros.training.trainer import Trainer

CHECKPOINTS = "checkpoints"
_DONE = "done.json"
_OPTIONS = StateDictOptions(ignore_frozen_params=True, strict=False)


def list_checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run folder, oldest first."""
    return sorted(path for path in (run / CHECKPOINTS).glob("step-*") if (path / _DONE).is_file())


def save_checkpoint(trainer: Trainer, run: Path, step: int, keep: int) -> Path:
    """Writes the state after `step` steps, whole or not at all. Raises TrainingError when the disk takes it
    not."""
    target = run / CHECKPOINTS / f"step-{step:08}"
    processes = trainer.processes
    try:
        with _written_together(target, step, processes) as work, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one process needs no process group, and that is meant
            state_dict_saver.save(_state(trainer), checkpoint_id=work, no_dist=not processes.many)
        for old in list_checkpoints(run)[:-keep] if processes.first else ():
            remove_directory(old, _CHECKPOINT)
    except (OSError, CheckpointException) as error:
        reason = " ".join(str(error).split())[:300]
        raise TrainingError(f"step {step}: the checkpoint {target} cannot be written: {reason}") from error
    return target


@contextmanager
def _written_together(target: Path, step: int, processes: Processes) -> Iterator[Path]:
    """The directory that all processes write into; the first one makes it, and puts it into its place."""
    if not processes.first:
        yield Path(processes.share(""))
        processes.barrier()
        return
    with new_directory(target, _CHECKPOINT, overwrite=True) as work:  # a resumed run writes steps again
        yield Path(processes.share(str(work)))
        processes.barrier()
        (work / _DONE).write_text(json.dumps({"step": step}))


def _members(directory: Path) -> frozenset[str] | None:
    """The files of a checkpoint: ours, and PyTorch's own."""
    if not (directory / _DONE).is_file():
        return None
    torchs = (path.name for path in directory.iterdir() if path.suffix == ".distcp")
    return frozenset((_DONE, ".metadata", *torchs))


_CHECKPOINT = DirectoryKind("training checkpoint", _members)


def load_checkpoint(trainer: Trainer, path: Path) -> int:
    """Puts a checkpoint's state into `trainer`. Returns the number of steps done. Raises TrainingError."""
    state = _state(trainer)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state_dict_loader.load(state, checkpoint_id=path, no_dist=not trainer.processes.many)
        step = int(json.loads((path / _DONE).read_text())["step"])
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
