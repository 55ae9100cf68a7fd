# SPDX-License-Identifier: Apache-2.0
"""Which samples each step sees, and the batches of this process."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

from torch.utils.data import DataLoader

from mobilevlm_ros.training.data.batch import Batch, Collate
from mobilevlm_ros.training.data.dataset import ConversationDataset
from mobilevlm_ros.training.data.sampler import batches_of, epoch_order
from mobilevlm_ros.training.data.shards import TokenDataset
from mobilevlm_ros.training.parallel import Processes
from mobilevlm_ros.training.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which samples go into which batch of which step: the same for any number of processes.

    `batches_per_step`: accumulation steps times processes. The official sampler groups by processes alone;
    with
    one accumulation step that is the same.
    """

    dataset: ConversationDataset | TokenDataset
    recipe: Recipe
    batches_per_step: int

    @functools.cached_property
    def per_epoch(self) -> int:
        """Batches; an epoch ends with a whole step, for which its first batches come again."""
        batches = -(-len(self.dataset) // self.recipe.batch.size)
        return batches + -batches % self.batches_per_step

    @property
    def steps(self) -> int:
        schedule = self.recipe.schedule
        return schedule.steps or max(1, round(schedule.epochs * self.per_epoch / self.batches_per_step))

    def batches(self, first: int) -> Iterator[list[int]]:
        """The run's batches from number `first` on, epoch after epoch without end."""
        data, batch = self.recipe.data, self.recipe.batch.size
        epoch, skipped = divmod(first, self.per_epoch)
        while True:
            order = epoch_order(
                self.dataset.lengths,
                batch,
                self.batches_per_step,
                self.recipe.run.seed,
                epoch,
                grouped=data.group_by_modality,
            )
            yield from batches_of(order, batch, self.batches_per_step)[skipped:]
            epoch, skipped = epoch + 1, 0

    def load(self, first_step: int, steps: int, processes: Processes) -> Iterator[list[Batch]]:
        """This process's batches of each step from `first_step` to before `steps`: batch j is process j mod
        n's."""
        recipe = self.recipe
        each = self.batches_per_step // processes.count
        stream = self.batches(first_step * self.batches_per_step)
        wanted = [next(stream) for _ in range((steps - first_step) * self.batches_per_step)]
        loader = DataLoader(
            self.dataset,
            batch_sampler=wanted[processes.rank :: processes.count],
            collate_fn=Collate(self.dataset.tokenizer.unk_id, recipe.data.max_length),
            num_workers=recipe.data.workers,
            multiprocessing_context="spawn" if recipe.data.workers else None,
            persistent_workers=False,
            pin_memory=processes.device.type == "cuda",
        )
        batches = iter(loader)
        for _ in range(first_step, steps):
            yield [next(batches) for _ in range(each)]
