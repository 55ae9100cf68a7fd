# SPDX-License-Identifier: Apache-2.0
"""A packed question must see exactly what the same question sees alone."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mobilevlm_ros.model.mobilevlm import MobileVLM
from mobilevlm_ros.processing.prompt_template import TEMPLATES, image_question
from mobilevlm_ros.processing.tokenizer import Tokenizer
from mobilevlm_ros.training.nano.packing import IGNORE, Packer, splice
from mobilevlm_ros.training.nano.recipe import nano_config
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
    """A row about one picture beside one about two."""
    packer = Packer(tokenizer, model.config.num_image_tokens)
    batch = packer.pack([CONVERSATIONS, CONVERSATIONS[:2]], 288, [1, 2])
    images = model.encode_images(torch.randn(3, 3, 144, 144))
    packed = model(
        splice(model, batch, images),
        positions=torch.from_numpy(batch.positions),
        mask=torch.from_numpy(batch.mask()),
    )
    for row, shown in enumerate((images[:1], images[1:])):
        start = len(packer.prefix(len(shown)))
        for number, turns in enumerate(CONVERSATIONS[: 3 - row], 1):
            first = image_question(turns[0][0], len(shown))
            rendered = TEMPLATES["v1"].render([(first, turns[0][1]), *turns[1:]])
            alone = model(model.embed_prompt(tokenizer.encode_prompt(rendered), shown))[0, start:]
            assert torch.allclose(packed[row, batch.segments[row] == number], alone, atol=1e-4)


def test_answers_that_do_not_know_are_marked_where_they_begin(tokenizer: Tokenizer) -> None:
    unknown = "I do not know."
    packer = Packer(tokenizer, 36, frozenset({unknown}))
    batch = packer.pack([[[("Why?", unknown)], [("Is there a cone?", "Yes"), ("And a dog?", unknown)]]], 256)
    places = np.flatnonzero(batch.unsure[0])
    assert len(places) == 2
    begin = tokenizer.encode(unknown, bos=False)
    assert [list(batch.labels[0, at : at + len(begin)]) for at in places] == [begin, begin]


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
