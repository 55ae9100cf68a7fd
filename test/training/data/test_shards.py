# SPDX-License-Identifier: Apache-2.0
"""Text becomes shards, shards become blocks, blocks train a language model from nothing, then chat."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mobilevlm_ros.cli import main
from mobilevlm_ros.errors import DataError
from mobilevlm_ros.processing.tokenizer import Tokenizer
from mobilevlm_ros.training.data.shards import TokenDataset
from mobilevlm_ros.training.run.metrics import read_metrics

LLM = Path(__file__).parents[2] / "data" / "train" / "llm"
TEXT = "The rain falls on the quiet street.\n\nSeven times two is 14.\n\n"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources: rain and seven."""
    folder = tmp_path_factory.mktemp("shards")
    (folder / "rain.txt").write_text(TEXT * 40)
    many = "\n".join(json.dumps({"text": "Seven times two is 14."}) for _ in range(30))
    (folder / "seven.jsonl").write_text(many)
    for name in ("rain.txt", "seven.jsonl"):
        out = folder / "shards" / name.partition(".")[0]
        assert main(["tokenize", str(folder / name), "--model", str(LLM), "-o", str(out), "--quiet"]) == 0
    return folder / "shards"


def test_blocks_are_the_documents_in_order(shards: Path) -> None:
    tokenizer = Tokenizer(LLM / "tokenizer.model")
    data = TokenDataset(shards / "rain", LLM / "tokenizer.model", 16)
    stream = [token for index in range(len(data)) for token in data[index].ids]
    documents = ["The rain falls on the quiet street.", "Seven times two is 14."] * 40
    expected = [t for text in documents for t in [*tokenizer.encode(text), tokenizer.eos_id]]
    assert stream == expected[: len(expected) // 16 * 16]


def test_mixture_keeps_its_weights(shards: Path) -> None:
    alone = TokenDataset(shards, LLM / "tokenizer.model", 16)
    mixed = TokenDataset(shards, LLM / "tokenizer.model", 16, "rain=1 seven=3")
    share = np.mean([mixed[i].id.startswith("seven") for i in range(len(mixed))])
    assert share == pytest.approx(0.75, abs=0.02)
    assert len(mixed) == pytest.approx(len(alone), abs=1)


@pytest.mark.parametrize(
    ("mixture", "message"), [("rain=x", "NAME=WEIGHT"), ("snow=1", "rain, seven"), ("rain=-1", "above 0")]
)
def test_wrong_mixtures_are_refused(mixture: str, message: str, shards: Path) -> None:
    with pytest.raises(DataError, match=message):
        TokenDataset(shards, LLM / "tokenizer.model", 16, mixture)


def test_broken_shard_is_refused(shards: Path, tmp_path: Path) -> None:
    broken = tmp_path / "rain"
    shutil.copytree(shards / "rain", broken)
    tokens = (broken / "tokens.bin").read_bytes()
    (broken / "tokens.bin").write_bytes(tokens[:-100])
    with pytest.raises(DataError, match="not as long"):
        TokenDataset(broken, LLM / "tokenizer.model", 16)


def test_from_nothing_to_chat(shards: Path, tmp_path: Path) -> None:
    common = ["--threads", "1", "--quiet", "--set", "data.workers=0", "--set", "run.precision=fp32"]
    common += ["--set", "batch.size=4", "--set", "batch.accumulation=1"]
    base, chat = tmp_path / "base", tmp_path / "chat"
    pretrain = [
        "--set",
        "data.max_length=32",
        "--set",
        "schedule.steps=30",
        "--set",
        "schedule.warmup_steps=3",
    ]
    pretrain += ["--set", "optimizer.learning_rate=1e-2", "--set", "data.mixture=rain=1 seven=1"]
    words = ["--model", str(LLM), "--data", str(shards), "-o", str(base)]
    assert main(["train", "pretrain-llm", *words, *common, *pretrain]) == 0
    losses = [line["loss"] for line in read_metrics(base)]
    assert losses[0] > 5.5 and losses[-1] < 2  # from ln(480) to text known by heart
    data = LLM.parent / "chat.json"
    words = ["--model", str(base / "checkpoint"), "--data", str(data), "-o", str(chat)]
    assert main(["train", "sft", *words, *common]) == 0
    assert (chat / "checkpoint" / "model.safetensors").is_file()
