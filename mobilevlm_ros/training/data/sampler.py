# SPDX-License-Identifier: Apache-2.0
"""In which order samples are seen. An epoch's order depends on the seed and the epoch alone.

Grouping by length is LLaVA's: similar lengths share a batch, pictures and plain text never do (except the
last).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mobilevlm_ros.errors import DataError


def epoch_order(
    lengths: Sequence[int], batch_size: int, world_size: int, seed: int, epoch: int, *, grouped: bool
) -> list[int]:
    """The samples of an epoch; `lengths` are Sample.modality_length."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed * 1_000_003 + epoch)
        if not grouped:
            return torch.randperm(len(lengths)).tolist()
        return group_by_modality(lengths, batch_size, world_size)


def batches_of(order: Sequence[int], batch_size: int, multiple: int = 1) -> list[list[int]]:
    """The order cut into batches; where their number is no `multiple`, the first ones come again at the
    end."""
    batches = [list(order[i : i + batch_size]) for i in range(0, len(order), batch_size)]
    missing = -len(batches) % multiple
    return batches + [batches[i % len(batches)] for i in range(missing)]


def group_by_modality(
    lengths: Sequence[int], batch_size: int, world_size: int, generator: torch.Generator | None = None
) -> list[int]:
    """Samples with pictures (positive lengths) and without (negative) in batches of their own.

    `generator` shuffles the megabatches; what is inside them comes from PyTorch's global state, as
    officially.
    Data of one kind only is grouped by length. Raises DataError for a sample without words.
    """
    if 0 in lengths:
        raise DataError(f"sample {list(lengths).index(0)} has no words; remove it")
    size = batch_size * world_size
    kinds = [[i for i, n in enumerate(lengths) if n > 0], [i for i, n in enumerate(lengths) if n < 0]]
    if not all(kinds):
        return group_by_length([abs(n) for n in lengths], batch_size, world_size)
    whole: list[list[int]] = []
    rest: list[int] = []
    for kind in kinds:
        order = group_by_length([abs(lengths[i]) for i in kind], batch_size, world_size)
        chunks = [[kind[i] for i in order[k : k + size]] for k in range(0, len(order), size)]
        whole += chunks[:-1]
        rest += chunks[-1]
    shuffled = [whole[i] for i in torch.randperm(len(whole), generator=generator).tolist()]
    if len(rest) >= size:  # enough for a batch of its own, which goes first
        shuffled.insert(0, rest[:size])
        rest = rest[size:]
    return [i for chunk in [*shuffled, rest] for i in chunk]


def group_by_length(
    lengths: Sequence[int], batch_size: int, world_size: int, generator: torch.Generator | None = None
) -> list[int]:
    """A shuffle in which the batches that run at the same time are about equally long."""
    shuffled = torch.randperm(len(lengths), generator=generator).tolist()
    size = batch_size * world_size
    order: list[int] = []
    for start in range(0, len(shuffled), size):
        chunk = sorted(shuffled[start : start + size], key=lambda i: lengths[i], reverse=True)
        for part in _even_parts(chunk, lengths, world_size):
            order += part
    return order


def _even_parts(indices: list[int], lengths: Sequence[int], count: int) -> list[list[int]]:
    """`indices`, longest first, over `count` parts of equal size, each to the shortest part that has room."""
    if len(indices) % count:
        return [indices[i::count] for i in range(count)]
    parts: list[list[int]] = [[] for _ in range(count)]
    totals = [0.0] * count
    for index in indices:
        part = totals.index(min(totals))
        parts[part].append(index)
        totals[part] += lengths[index]
        if len(parts[part]) == len(indices) // count:
            totals[part] = float("inf")
    return parts
