# SPDX-License-Identifier: Apache-2.0
"""Many processes: PyTorch's FSDP2 under torchrun. One process needs nothing of it.

Each process trains on batches of its own; gradients are averaged over processes, so two processes equal one
with two accumulation steps.
"""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor

from mobilevlm_ros.training.objective import Objective
from mobilevlm_ros.training.recipe import RunSettings


class Processes:
    """The processes of a run, seen from this one."""

    def __init__(self, rank: int = 0, count: int = 1, device: torch.device | None = None) -> None:
        self.rank, self.count = rank, count
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @classmethod
    def join(cls) -> Processes:
        """This process among those that torchrun started; alone without torchrun."""
        if "WORLD_SIZE" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
            return cls()
        device = torch.device("cpu")
        if torch.cuda.is_available():
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
            torch.cuda.set_device(device)
        dist.init_process_group("cuda:nccl,cpu:gloo" if device.type == "cuda" else "gloo")
        return cls(dist.get_rank(), dist.get_world_size(), device)

    @property
    def many(self) -> bool:
        return self.count > 1

    @property
    def first(self) -> bool:
        """Whether this one speaks for all: prints, and writes what is written once."""
        return self.rank == 0

    def leave(self) -> None:
        """Ends the exchange with the others."""
        if self.many and dist.is_initialized():
            dist.destroy_process_group()

    def shard(self, objective: Objective, run: RunSettings) -> Objective:
        """Spreads weights, gradients and optimiser state over the processes, layer by layer."""
        if not self.many:
            return objective
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        half = torch.bfloat16 if run.precision == "bf16" else None
        policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32)
        mesh = dist.device_mesh.init_device_mesh(self.device.type, (self.count,))
        for layer in objective.model.model.layers:
            fully_shard(layer, mesh=mesh, mp_policy=policy)
        fully_shard(objective, mesh=mesh, mp_policy=policy)
        return objective

    def exchange_gradients(self, objective: Objective, now: bool) -> None:
        """Whether the next backward pass sums the gradients over the processes, or keeps them for later."""
        if self.many:
            objective.set_requires_gradient_sync(now)  # type: ignore[operator]

    def mean(self, value: Tensor) -> float:
        """A number's mean over the processes."""
        if self.many:
            value = value.clone()
            dist.all_reduce(value)
            value /= self.count
        return float(value)

    def total(self, value: int) -> int:
        """A whole number's sum over the processes."""
        if not self.many:
            return value
        whole = torch.tensor(value, device=self.device)
        dist.all_reduce(whole)
        return int(whole)

    def whole(self, value: Tensor) -> float:
        """A value that may be spread over the processes."""
        return float(value.full_tensor()) if hasattr(value, "full_tensor") else float(value)

    def share(self, text: str) -> str:
        """The first process's text, on all of them."""
        if not self.many:
            return text
        shared = [text]
        dist.broadcast_object_list(shared, src=0)
        return shared[0]

    def barrier(self) -> None:
        """Waits until all processes are here."""
        if self.many:
            dist.barrier()
