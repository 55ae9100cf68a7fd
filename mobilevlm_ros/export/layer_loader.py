# SPDX-License-Identifier: Apache-2.0
"""A checkpoint's tensors, one layer in memory at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Weights = Callable[[str], NDArray[np.float32]]
"""A checkpoint's tensor, in f32, by its official name."""

M = TypeVar("M", bound=nn.Module)


def load_module(make: Callable[[], M], weights: Weights, prefix: str) -> M:
    """The module that `make` makes, with the tensors of the checkpoint that `prefix` begins."""
    with torch.device("meta"):
        module = make()
    for key in module.state_dict():
        owner, _, kind = key.rpartition(".")
        value = nn.Parameter(torch.from_numpy(weights(f"{prefix}.{key}")), requires_grad=False)
        setattr(module.get_submodule(owner), kind, value)
    return module
