# SPDX-License-Identifier: Apache-2.0
"""Training on several pictures in one conversation: what is taught, which picture stands where, and that it
learns."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mobilevlm_ros.checkpoints.checkpoint import load
from mobilevlm_ros.cli import main
from mobilevlm_ros.processing.tokenizer import IMAGE_TOKEN, Tokenizer
from mobilevlm_ros.training.data.batch import Collate
from mobilevlm_ros.training.data.conversations import parse
from mobilevlm_ros.training.data.dataset import ConversationDataset, Pictures
from mobilevlm_ros.training.data.labels import IGNORE
from mobilevlm_ros.training.data.pictures import FolderPictures
from mobilevlm_ros.training.objective import Objective, splice
from mobilevlm_ros.training.run.metrics import read_metrics
from mobilevlm_ros.training.start import load_start, open_start

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
AT_ONCE = {
    "id": "at once",
    "image": ["s1.png", "s2.png"],
    "conversations": [
        {"from": "human", "value": "<image>\n<image>\nWhat changed?"},
        {"from": "gpt", "value": "The cup."},
    ],
}
IN_TURN = {
    "id": "in turn",
    "image": ["s2.png", "s1.png"],
    "conversations": [
        {"from": "human", "value": "<image>\nWhat?"},
        {"from": "gpt", "value": "A cup."},
        {"from": "human", "value": "<image>\nAnd now?"},
        {"from": "gpt", "value": "Rain."},
    ],
}
ONE = {"id": "one", "image": "s1.png", "conversations": IN_TURN["conversations"][:2]}


@pytest.fixture(scope="module")
def pictures(train_ref: Path) -> FolderPictures:
    return FolderPictures(train_ref / "images")


@pytest.fixture(scope="module")
def model(train_ref: Path, ckpt: Path) -> torch.nn.Module:
    """The tiny V2 model with its tower."""
    from mobilevlm_ros.training.recipe import make_recipe
    from mobilevlm_ros.training.stages import STAGES

    where = {
        "path": str(train_ref / "v2_stage1"),
        "vision_tower": str(ckpt / "tiny-clip-336"),
        "tokenizer": str(train_ref / "llm" / "tokenizer.model"),
    }
    return load_start(open_start(make_recipe(STAGES["instruct"], {"model": where})))


@pytest.fixture(scope="module")
def dataset(train_ref: Path, pictures: FolderPictures, model: torch.nn.Module) -> ConversationDataset:
    samples = [parse(record, "x") for record in (AT_ONCE, IN_TURN, ONE)]
    tokenizer = train_ref / "llm" / "tokenizer.model"
    return ConversationDataset(
        samples, tokenizer, "v1", 2048, source=pictures, pictures=Pictures.of(model.config)
    )


def by_hand(tokenizer: Tokenizer, parts: list[tuple[str, bool]]) -> tuple[list[int], list[int]]:
    """Ids and labels of (text, taught) parts; "<image>" is one part, and "<s>" the first."""
    ids, labels = [], []
    for text, taught in parts:
        more = [IMAGE_TOKEN] if text == "<image>" else tokenizer.encode(text, bos=False)
        ids += more
        labels += more if taught else [IGNORE] * len(more)
    return ids, labels


def test_labels_by_hand(dataset: ConversationDataset) -> None:
    """Each taught span is the answer's tokens and </s>, wherever the pictures stand."""
    tokenizer = dataset.tokenizer
    opening = [("<s>", False), (f"{SYSTEM} USER: ", False), ("<image>", False)]
    expected = {
        0: [
            *opening,
            ("\n", False),
            ("<image>", False),
            ("\nWhat changed? ASSISTANT:", False),
            ("The cup.", True),
            ("</s>", True),
        ],
        1: [
            *opening,
            ("\nWhat? ASSISTANT:", False),
            ("A cup.", True),
            ("</s>", True),
            ("USER: ", False),
            ("<image>", False),
            ("\nAnd now? ASSISTANT:", False),
            ("Rain.", True),
            ("</s>", True),
        ],
    }
    for index, parts in expected.items():
        item = dataset[index]
        ids, labels = by_hand(tokenizer, parts)
        assert tokenizer.decode(item.ids) == tokenizer.decode(ids)
        assert [i for i in item.ids if i == IMAGE_TOKEN] == [IMAGE_TOKEN] * 2
        assert item.warning is None and item.pixels.shape[0] == 2
        taught = [label for label in item.labels if label != IGNORE]
        assert taught == [label for label in labels if label != IGNORE]
        spans = np.flatnonzero(np.diff([label != IGNORE for label in [IGNORE, *item.labels]]))
        assert len(spans) == 2 * sum(text == "</s>" for text, _ in parts) - (item.labels[-1] != IGNORE)


@torch.no_grad()
def test_each_picture_stands_where_it_is_marked(dataset: ConversationDataset, model: torch.nn.Module) -> None:
    batch = Collate(dataset.tokenizer.unk_id, 2048)([dataset[index] for index in range(3)])
    assert batch.pictures == [2, 2, 1]
    embeddings, labels, mask = splice(model, batch)
    first, second = (model.encode_images(torch.from_numpy(dataset[0].pixels[at : at + 1])) for at in (0, 1))
    length = first.shape[1]
    assert not torch.allclose(first, second)
    for row, shown in enumerate(([first, second], [second, first], [first])):
        start = 0
        for nth, picture in enumerate(shown):
            place = [at for at, token in enumerate(batch.ids[row].tolist()) if token == IMAGE_TOKEN][nth]
            start = place + nth * (length - 1)
            torch.testing.assert_close(embeddings[row, start : start + length], picture[0])
            assert (labels[row, start : start + length] == IGNORE).all()
            assert mask[row, start : start + length].all()
        assert (labels[row] != IGNORE).sum() == (batch.labels[row] != IGNORE).sum()
    present = (batch.ids != dataset.tokenizer.unk_id).sum(1) + torch.tensor([2, 2, 1]) * (length - 1)
    assert mask.sum(1).tolist() == present.tolist()


def test_every_picture_is_learnt_from(dataset: ConversationDataset, model: torch.nn.Module) -> None:
    """The gradient reaches both pictures, and their order matters."""
    collate = Collate(dataset.tokenizer.unk_id, 2048)
    batch = collate([dataset[0]])
    batch.pixels.requires_grad_()
    features = model.encode_features(batch.pixels).detach().requires_grad_()
    model.encode_features = lambda pixels: features
    try:
        loss = Objective(model)(batch)
        loss.backward()
        assert (features.grad.abs().amax((1, 2)) > 0).tolist() == [True, True]
        features = features.detach().flip(0)
        assert abs(Objective(model)(batch).item() - loss.item()) > 1e-6
    finally:
        del model.encode_features
        model.zero_grad()


def test_a_run_on_pairs_of_pictures_learns(tiny_run: list[str], tmp_path: Path) -> None:
    data = tmp_path / "pairs.json"
    data.write_text(json.dumps([AT_ONCE, IN_TURN]))
    run = tmp_path / "run"
    options = ["--data", str(data), "--set", "schedule.steps=6", "--set", "batch.size=2"]
    options += ["--set", "optimizer.learning_rate=3e-3", "--set", "run.save_every=100", "-o", str(run)]
    assert main(["train", "instruct", *tiny_run, *options]) == 0
    losses = [line["loss"] for line in read_metrics(run)]
    assert losses[-1] < 0.9 * losses[0]
    assert load(run / "checkpoint").config.num_image_tokens > 0


def test_pictures_and_marks_must_match(
    tiny_run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "pairs.json"
    data.write_text(json.dumps([{**AT_ONCE, "image": ["s1.png", "s2.png", "s1.png"]}]))
    assert main(["train", "lora", *tiny_run, "--data", str(data), "-o", str(tmp_path / "run")]) == 1
    assert "at once: has 2 <image> marks for 3 pictures" in capsys.readouterr().err
