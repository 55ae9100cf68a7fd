# SPDX-License-Identifier: Apache-2.0
"""A packed question must see exactly what the same question sees alone."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mobilevlm_ros.model.mobilevlm import MobileVLM
from mobilevlm_ros.processing.prompt_template import TEMPLATES, image_question
from mobilevlm_ros.processing.tokenizer import Tokenizer
from mobilevlm_ros.training.nano.packing import IGNORE, Packer
from mobilevlm_ros.training.nano.train import nano_config
from mobilevlm_ros.training.nano.vocabulary import train_tokenizer

CONVERSATIONS = [
    [("Is there a red ball?", "Yes, there is a red ball.")],
    [("How many cones are there?", "2"), ("Where is the car?", "The car is ahead.")],
    [("Describe the scene.", "The road is empty.")],
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer(train_tokenizer(Path(tmp_path_factory.mktemp("tok")) / "tokenizer.model", scenes=150))


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> MobileVLM:
    torch.manual_seed(3)
    built = MobileVLM(nano_config(tokenizer.vocab_size))
    built.initialize(0.1)
    return built.eval()


@torch.no_grad()
def test_packed_question_equals_the_question_alone(tokenizer: Tokenizer, model: MobileVLM) -> None:
    packer = Packer(tokenizer, model.config.num_image_tokens)
    batch = packer.pack([CONVERSATIONS], 256)
    image = model.encode_images(torch.randn(1, 3, 144, 144))
    embeddings = model.embed_tokens(torch.from_numpy(batch.ids).clamp(min=0))
    spliced = torch.cat((embeddings[:, : packer.image_start], image, embeddings[:, packer.image_end :]), 1)
    packed = model(spliced, positions=torch.from_numpy(batch.positions), mask=torch.from_numpy(batch.mask()))
    for number, turns in enumerate(CONVERSATIONS, 1):
        rendered = TEMPLATES["v1"].render([(image_question(turns[0][0]), turns[0][1]), *turns[1:]])
        ids = tokenizer.encode_prompt(rendered)
        alone = model(model.embed_prompt(ids, image))[0, packer.image_end :]
        assert torch.allclose(packed[0, batch.segments[0] == number], alone, atol=1e-4)


def test_labels_are_the_answers_and_their_end(tokenizer: Tokenizer) -> None:
    batch = Packer(tokenizer, 36).pack([CONVERSATIONS], 256)
    for number, turns in enumerate(CONVERSATIONS, 1):
        own = batch.segments[0] == number
        taught = batch.labels[0][own]
        taught = taught[taught != IGNORE]
        assert list(taught).count(tokenizer.eos_id) == len(turns)
        assert tokenizer.decode(taught) == " ".join(answer for _, answer in turns)
        # each label is the id of the position that follows
        where = np.flatnonzero(batch.labels[0] != IGNORE)
        assert np.array_equal(batch.ids[0][where + 1], batch.labels[0][where])
    assert (batch.labels[0][batch.segments[0] <= 0] == IGNORE).all()


def test_what_does_not_fit_is_left_out_whole(tokenizer: Tokenizer) -> None:
    packer = Packer(tokenizer, 36)
    whole = packer.pack([CONVERSATIONS], 256)
    used = int((whole.segments[0] >= 0).sum())
    short = packer.pack([CONVERSATIONS], used - 1)
    assert short.segments.max() == 2
    assert np.array_equal(
        short.ids[0][short.segments[0] >= 0], whole.ids[0][(whole.segments[0] >= 0) & (whole.segments[0] < 3)]
    )
