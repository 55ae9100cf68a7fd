# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from mobilevlm_ros.ros.images.annotation import GREEN, RED, Lamp, Line, overlay, transcript

PICTURE = np.full((240, 320, 3), 180, np.uint8)


def test_an_overlay_changes_its_bands_only_and_not_the_original() -> None:
    drawn = overlay(PICTURE, [Line("question")], [Line("caption")])
    assert drawn.shape == PICTURE.shape and (PICTURE == 180).all()
    assert (drawn[100:140] == 180).all()
    assert (drawn[:10] < 180).any() and (drawn[-10:] < 180).any()


def test_no_lines_leave_the_picture_as_it_is() -> None:
    assert np.array_equal(overlay(PICTURE), PICTURE)


def test_a_transcript_puts_a_panel_below_that_grows_with_the_text() -> None:
    short = transcript(PICTURE, [Line("one")])
    long = transcript(PICTURE, [Line("many words " * 40), Line("two")])
    assert np.array_equal(short[:240], PICTURE)
    assert 240 < short.shape[0] < long.shape[0] and short.shape[1] == 320


def test_marks_are_green_and_red() -> None:
    def colours(mark: bool) -> np.ndarray:
        return transcript(PICTURE, [Line("x", mark=mark)])[240:].reshape(-1, 3)

    assert (colours(True) == GREEN).all(axis=1).any() and not (colours(True) == RED).all(axis=1).any()
    assert (colours(False) == RED).all(axis=1).any()


@pytest.mark.parametrize("size", [(1, 1), (3, 2000), (2000, 3), (16, 16)])
def test_any_picture_and_any_text_can_be_drawn(size: tuple[int, int]) -> None:
    picture = np.zeros((*size, 3), np.uint8)
    lines = [Line("Was ist das? \u2713 \U0001f916\x00\n" * 5, mark=True), Line("")]
    lamps = [Lamp("caf\u00e9 0.5", RED), Lamp("", GREEN, False)]
    assert overlay(picture, lines, lines, lamps).shape == picture.shape
    assert transcript(picture, lines).shape[1] == size[1]


def test_lamps_are_lit_in_their_colour_or_a_ring() -> None:
    def pixels(lamp: Lamp) -> int:
        drawn = overlay(np.full((720, 1280, 3), 180, np.uint8), lamps=[lamp])
        return int((drawn == np.array(lamp.color)).all(axis=2).sum())

    assert pixels(Lamp("person 0.97", RED)) > 2 * pixels(Lamp("person", RED, lit=False)) > 0


def test_many_lamps_and_long_texts_leave_half_of_the_picture_free() -> None:
    lamps = [Lamp(f"monitor number {i}", GREEN) for i in range(64)]
    long = [Line("many words " * 200)]
    for drawn in (overlay(PICTURE, lamps=lamps), overlay(PICTURE, long), overlay(PICTURE, (), long)):
        changed = (drawn != PICTURE).any(axis=(1, 2)).mean()
        assert 0.1 < changed < 0.5
    assert (overlay(PICTURE, long, long, lamps)[115:125] == 180).all()


def ink(text: str) -> np.ndarray:
    """Where a text is drawn."""
    panel = transcript(PICTURE, [Line(text)])[240:]
    return (panel != panel[0, 0]).any(axis=2)


def test_letters_of_other_alphabets_are_drawn_and_not_question_marks() -> None:
    for text in ("\u00e9", "\u00fc", "\u00df"):
        assert ink(text).any() and not np.array_equal(ink(text), ink("?"))
    assert np.array_equal(ink("\x07"), ink("?"))


def test_a_text_without_spaces_is_wrapped() -> None:
    assert transcript(PICTURE, [Line("x" * 400)]).shape[0] > transcript(PICTURE, [Line("x")]).shape[0] + 60


@pytest.mark.parametrize("size", [(240, 320), (480, 640), (720, 1280)])
def test_of_a_long_answer_confidence_and_age_stay(size: tuple[int, int]) -> None:
    picture = np.full((*size, 3), 90, np.uint8)

    def drawn(question: str, answer: str, end: str) -> np.ndarray:
        return overlay(picture, [Line("front"), Line(question), Line(answer, end=end)])

    long = "a word " * 1000
    assert (drawn("Is it?", long, "(0.41) 3 s ago") != drawn("Is it?", long, "(0.97) 3 s ago")).any()
    assert (drawn(long, "yes", "(0.41)") != drawn(long, "no", "(0.41)")).any(), "no question hides its answer"
    assert (drawn("Is it?", long, "(0.41)")[size[0] // 2 :] == 90).all()


def test_a_letter_that_the_first_font_has_not_is_drawn_with_another() -> None:
    """Where the system has a font with Chinese letters: two of them look different, which signs for a
    missing letter do not."""
    from PIL import ImageFont

    try:
        ImageFont.truetype("NotoSansCJK-Regular.ttc", 20)
    except OSError:
        try:
            ImageFont.truetype("DroidSansFallbackFull.ttf", 20)
        except OSError:
            pytest.skip("no font with Chinese letters (apt install fonts-noto-cjk)")
    picture = np.zeros((360, 640, 3), np.uint8)
    assert (overlay(picture, [Line("门")]) != overlay(picture, [Line("人")])).any()
