# SPDX-License-Identifier: Apache-2.0
"""Token ids, labels and masks are the official ones, exactly."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.errors import DataError
from mobilevlm_ros.processing.tokenizer import IMAGE_TOKEN, Tokenizer
from mobilevlm_ros.training.data.batch import Collate, Item
from mobilevlm_ros.training.data.conversations import Problem, Sample, find_problem, parse, read_conversations
from mobilevlm_ros.training.data.labels import IGNORE, encode

DATA = Path(__file__).parents[2] / "data" / "train"
LABELS: dict[str, Any] = json.loads((DATA / "labels.json").read_text())
SFT: dict[str, Any] = json.loads((DATA / "sft_labels.json").read_text())
TOKENIZER = Tokenizer(DATA / "llm" / "tokenizer.model")


def sample_of(case: dict[str, Any]) -> Sample:
    sample = parse(case, "case")
    if isinstance(sample, Problem):
        raise DataError(str(sample))
    return sample


@pytest.mark.parametrize("name", [n for n, case in LABELS.items() if "error" not in case])
def test_conversations_with_pictures(name: str) -> None:
    case = LABELS[name]
    sample = sample_of(case["sample"])
    encoded = encode(sample, case["version"], TOKENIZER, case["model_max_length"])
    assert encoded.ids == case["dataset_input_ids"]
    assert encoded.labels == case["dataset_labels"]
    assert (encoded.warning is None) == (case["warning"] is None)
    assert sample.modality_length == case["modality_length"]
    batch = Collate(TOKENIZER.unk_id, case["model_max_length"])([Item("x", encoded.ids, encoded.labels)])
    assert batch.ids[0].tolist() == case["batch_input_ids"]
    assert batch.labels[0].tolist() == case["batch_labels"]
    assert batch.mask[0].int().tolist() == case["batch_attention_mask"]


@pytest.mark.parametrize("name", [n for n, case in LABELS.items() if "error" in case])
def test_refused_conversations(name: str) -> None:
    case = LABELS[name]
    with pytest.raises(DataError, match=r"human|turn|picture"):
        encode(sample_of(case["sample"]), case["version"], TOKENIZER, case["model_max_length"])


@pytest.mark.parametrize("name", list(SFT["cases"]))
def test_chats(name: str) -> None:
    case, length = SFT["cases"][name], SFT["model_max_length"]
    if "error" in case:
        with pytest.raises(DataError):
            encode(sample_of(case), "v1", TOKENIZER, length)
        return
    encoded = encode(sample_of(case), "v1", TOKENIZER, length)
    item = Item("x", encoded.ids, encoded.labels)
    batch = Collate(TOKENIZER.unk_id, length, pad_to_max=True)([item])
    assert encoded.ids == case["input_ids"]
    assert encoded.labels == case["labels"]
    assert batch.ids.shape == (1, case["padded_length"])
    assert (batch.labels[0, len(encoded.ids) :] == IGNORE).all()
    assert (encoded.warning is None) == (case["warning"] is None)


def test_batch_of_samples() -> None:
    reference = np.load(DATA / "train.npz")
    samples, problems = read_conversations(DATA / "samples_v1.json")
    assert not problems
    encoded = [encode(sample, "v1", TOKENIZER, 2048) for sample in samples]
    for index, one in enumerate(encoded):
        assert one.ids == reference[f"v1/{index}/input_ids"].tolist()
        assert one.labels == reference[f"v1/{index}/labels"].tolist()
    assert [s.modality_length for s in samples] == reference["v1/modality_lengths"].tolist()
    batch = Collate(TOKENIZER.unk_id, 2048)([Item(s.id, e.ids, e.labels) for s, e in zip(samples, encoded)])
    assert np.array_equal(batch.ids, reference["v1/batch/input_ids"])
    assert np.array_equal(batch.labels, reference["v1/batch/labels"])
    assert np.array_equal(batch.mask, reference["v1/batch/attention_mask"])


def test_several_pictures_stand_in_front_as_when_asked() -> None:
    turns = (("human", "Compare <image> with <image>, please."), ("gpt", "Same."))
    encoded = encode(Sample("x", turns, ("a.png", "b.png")), "v1", TOKENIZER, 2048)
    first = encoded.ids.index(IMAGE_TOKEN)
    assert encoded.ids.count(IMAGE_TOKEN) == 2
    newline = TOKENIZER.encode("\n", bos=False)
    assert encoded.ids[first + 1 : first + 2 + len(newline)] == [*newline, IMAGE_TOKEN]
    with pytest.raises(DataError, match="2 <image> marks for 3 pictures"):
        encode(Sample("x", turns, ("a.png", "b.png", "c.png")), "v1", TOKENIZER, 2048)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
turn = st.fixed_dictionaries({"from": st.sampled_from(["human", "gpt", "system"]), "value": json_values})
record = st.fixed_dictionaries(
    {}, optional={"id": json_values, "image": json_values, "conversations": st.lists(turn, max_size=5)}
)


@given(record | json_values)
def test_any_record_is_a_sample_or_a_problem(value: Any) -> None:
    read = parse(value, "sample 3")
    if isinstance(read, Problem):
        assert read.reason
        return
    if find_problem(read, "v1"):
        with pytest.raises(DataError):
            encode(read, "v1", TOKENIZER, 64)
        return
    encoded = encode(read, "v1", TOKENIZER, 64)
    assert len(encoded.ids) == len(encoded.labels)
    assert all(label in (IGNORE, token) for token, label in zip(encoded.ids, encoded.labels))
