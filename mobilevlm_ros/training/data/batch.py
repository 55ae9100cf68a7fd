# SPDX-License-Identifier: Apache-2.0
"""Samples side by side: ids and labels padded on the right, pictures stacked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mobilevlm_ros.training.data.labels import IGNORE


@dataclass(frozen=True)
class Item:
    """One sample, ready to be batched.

    ids, labels: up to the model's maximum length. pixels: f32[n,3,S,S], one zero picture for a sample
    without.
    warning: why nothing of it is taught, else None.
    """

    id: str
    ids: Sequence[int]
    labels: Sequence[int]
    pixels: NDArray[np.float32] | None = None
    warning: str | None = None


@dataclass
class Batch:
    """B samples of T positions.

    ids, labels i64[B,T]; mask bool[B,T], False where the id is the padding's (a real <unk> too, as
    officially);
    pixels f32[n,3,S,S] of all pictures in order, None for a language model; pictures: how many each sample
    has.
    """

    ids: Tensor
    labels: Tensor
    mask: Tensor
    pixels: Tensor | None
    pictures: list[int]
    samples: list[str]
    warnings: list[str] = field(default_factory=list)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        pixels = None if self.pixels is None else self.pixels.to(device, non_blocking=True)
        ids, labels, mask = (t.to(device, non_blocking=True) for t in (self.ids, self.labels, self.mask))
        return Batch(ids, labels, mask, pixels, self.pictures, self.samples, self.warnings)

    @property
    def taught(self) -> int:
        """Tokens that the loss is a mean of: the first of a row is nobody's successor."""
        return int((self.labels[:, 1:] != IGNORE).sum())


class Collate:
    """Items to a Batch: cut to `max_length`, padded to the longest, or to `max_length` where `pad_to_max`."""

    def __init__(self, pad_id: int, max_length: int, *, pad_to_max: bool = False) -> None:
        self.pad_id, self.max_length, self.pad_to_max = pad_id, max_length, pad_to_max

    def __call__(self, items: Sequence[Item]) -> Batch:
        width = self.max_length if self.pad_to_max else min(self.max_length, max(len(i.ids) for i in items))
        ids = torch.full((len(items), width), self.pad_id, dtype=torch.int64)
        labels = torch.full((len(items), width), IGNORE, dtype=torch.int64)
        for row, item in enumerate(items):
            length = min(len(item.ids), width)
            ids[row, :length] = torch.as_tensor(item.ids[:length])
            labels[row, :length] = torch.as_tensor(item.labels[:length])
        pixels = [item.pixels for item in items if item.pixels is not None]
        return Batch(
            ids,
            labels,
            ids != self.pad_id,
            torch.from_numpy(np.concatenate(pixels)) if pixels else None,
            [0 if item.pixels is None else len(item.pixels) for item in items],
            [item.id for item in items],
            [f"sample {item.id} {item.warning}" for item in items if item.warning],
        )
