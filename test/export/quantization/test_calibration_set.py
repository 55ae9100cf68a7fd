# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest

from mobilevlm_ros.errors import ImageError
from mobilevlm_ros.export.quantization.calibration_set import QUESTIONS, CalibrationSet, read_prompts
from mobilevlm_ros.processing.tokenizer import IMAGE_TOKEN, Tokenizer


@pytest.fixture
def pictures(tmp_path):
    """A directory with three pictures of one colour each."""
    for name, color in (("a.png", (255, 0, 0)), ("b.JPG", (0, 255, 0)), ("c.PNG", (0, 0, 255))):
        cv2.imwrite(str(tmp_path / name), np.full((24, 32, 3), color, np.uint8))
    (tmp_path / "notes.txt").write_text("not a picture, and none of our business")
    return tmp_path


def test_a_seed_determines_the_scenes():
    first, again, other = (list(CalibrationSet(None, 4, seed).conversations()) for seed in (3, 3, 4))
    assert CalibrationSet(None, 4).count() == len(first) == 4
    for one, two in zip(first, again):
        assert (one.question, one.answer) == (two.question, two.answer)
        np.testing.assert_array_equal(one.image, two.image)
    assert not any(np.array_equal(one.image, two.image) for one, two in zip(first, other))
    assert all(turn.answer for turn in first)


@pytest.mark.parametrize("samples", [2, 7, 24, 1000])
def test_every_picture_is_asked_about_and_never_twice_the_same(pictures, samples):
    calibration = CalibrationSet(pictures, samples, seed=5)
    turns = list(calibration.conversations())
    assert len(turns) == calibration.count() == min(samples, 3 * len(QUESTIONS))
    asked = [(turn.image[0, 0].tobytes(), turn.question) for turn in turns]
    assert len(set(asked)) == len(asked)
    shown = [color for color, _ in asked]
    assert len(set(shown)) == min(3, samples)
    assert sum(one != two for one, two in pairwise(shown)) == len(set(shown)) - 1  # each in a row
    assert all(turn.answer is None for turn in turns)


def test_pictures_are_rgb(pictures):
    (pictures / "b.JPG").unlink()
    (pictures / "c.PNG").unlink()
    (turn,) = CalibrationSet(pictures, 1).conversations()
    assert turn.image[0, 0].tolist() == [0, 0, 255]  # written as blue, green, red


def test_directories_that_will_not_do_are_named(pictures, tmp_path):
    with pytest.raises(ImageError, match="nowhere does not exist"):
        CalibrationSet(tmp_path / "nowhere").count()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="empty holds no pictures"):
        CalibrationSet(tmp_path / "empty").count()
    (pictures / "broken.png").write_bytes(b"nothing like a PNG")
    with pytest.raises(ImageError, match=r"broken\.png in the calibration directory is not a picture"):
        CalibrationSet(pictures).count()
    cut = (pictures / "a.png").read_bytes()[:40]
    (pictures / "broken.png").write_bytes(cut)  # begins well
    with pytest.raises(ImageError, match=r"broken\.png is not a picture"):
        list(CalibrationSet(pictures).conversations())


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"samples": 10**9}, {"seed": -1}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CalibrationSet(**wrong)


def test_prompts_are_what_serving_feeds(pictures, tiny_checkpoint):
    tokenizer = Tokenizer(tiny_checkpoint / "tokenizer.model")
    encoded = []

    def encode(image):
        encoded.append(image)
        return np.full((5, 2), -1, np.float32)

    prompts = list(
        read_prompts(
            CalibrationSet(pictures, 6).conversations(),
            tokenizer,
            "v1",
            encode,
            lambda ids: np.stack([ids, ids], -1).astype(np.float32),
        )
    )
    assert len(encoded) == 3  # once for each picture
    for prompt in prompts:
        ids = prompt.embeddings[:, 0].astype(int).tolist()
        at = ids.index(-1)
        assert ids[at : at + 5] == [-1] * 5
        assert len(ids) == at + 5 + prompt.tail
        texts = [f"USER: <image>\n{question} ASSISTANT:" for question in QUESTIONS]
        ends = [tokenizer.encode_prompt(text)[-prompt.tail :] for text in texts]
        assert ids[-prompt.tail :] in ends
        assert IMAGE_TOKEN not in ids
