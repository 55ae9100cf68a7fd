# SPDX-License-Identifier: Apache-2.0
"""Orders are the official sampler's; ours are whole, and depend on seed and epoch alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.errors import DataError
from mobilevlm_ros.training.data.sampler import batches_of, epoch_order, group_by_length, group_by_modality

DATA = Path(__file__).parents[2] / "data" / "train"
CASES: list[dict[str, Any]] = json.loads((DATA / "sampler.json").read_text())["cases"]


@pytest.mark.parametrize(
    "case", CASES, ids=lambda c: f"{c['batch_size']}x{c['world_size']}-{c['torch_manual_seed']}"
)
def test_official_orders(case: dict[str, Any]) -> None:
    def generator() -> torch.Generator | None:
        seed = case["generator_seed"]
        return None if seed is None else torch.Generator().manual_seed(seed)

    lengths, batch, world = case["lengths"], case["batch_size"], case["world_size"]
    torch.manual_seed(case["torch_manual_seed"])
    assert group_by_modality(lengths, batch, world, generator()) == case["indices"]
    torch.manual_seed(case["torch_manual_seed"])
    positive = [abs(length) for length in lengths]
    assert group_by_length(positive, batch, world, generator()) == case["indices_not_by_modality"]


def test_older_reference() -> None:
    reference = np.load(DATA / "train.npz")
    lengths = reference["sampler/lengths"].tolist()
    torch.manual_seed(1234)
    assert group_by_modality(lengths, 4, 2) == reference["sampler/indices_b4_w2"].tolist()
    torch.manual_seed(1234)
    seven = torch.Generator().manual_seed(7)
    assert group_by_modality(lengths, 4, 2, seven) == reference["sampler/indices_b4_w2_gen7"].tolist()


def test_a_sample_without_words_is_refused() -> None:
    with pytest.raises(DataError, match="sample 1 has no words"):
        group_by_modality([3, 0, -2], 1, 1)


lengths = st.lists(st.integers(-50, 50).filter(bool), min_size=1, max_size=60)


@given(lengths, st.integers(1, 5), st.integers(1, 4), st.integers(0, 3), st.booleans())
def test_every_sample_once_and_the_same_again(
    n: list[int], batch: int, world: int, epoch: int, g: bool
) -> None:
    order = epoch_order(n, batch, world, 5, epoch, grouped=g)
    assert sorted(order) == list(range(len(n)))
    torch.rand(3)  # whatever else draws numbers
    assert order == epoch_order(n, batch, world, 5, epoch, grouped=g)
    batches = batches_of(order, batch, world)
    assert len(batches) % world == 0
    assert {i for b in batches for i in b} == set(order)
