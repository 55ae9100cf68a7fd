# SPDX-License-Identifier: Apache-2.0
"""Why nothing arrives: the cause that is true is named, with its remedy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.nodes.cameras.image_reader import LOSS_WINDOW, LossMeter
from mobilevlm_ros.nodes.cameras.offers import TYPES, Listening, Offer, keeps_the_last, who_else, why_nothing

NAMES = {"raw": "/front/image", "compressed": "/front/image/compressed"}
RAW, PACKED = Offer("/cam", TYPES["raw"]), Offer("/cam", TYPES["compressed"])
LATCHED = Offer("/map", TYPES["raw"], latched=True)
SHAKY = Offer("/cam", TYPES["raw"], reliable=False)
TEXT = Offer("/talker", "std_msgs/msg/String")
HERE = Listening(NAMES, "raw")

CASES = [
    ("nobody", [], [], HERE, "nothing publishes /front/image or /front/image/compressed: start the camera"),
    ("packed under the raw name", [PACKED], [], HERE, "carries sensor_msgs/msg/CompressedImage (from /cam)"),
    ("packed under the raw name: what to do", [PACKED], [], HERE, "remap image/compressed:=/front/image"),
    ("raw under the packed name", [], [RAW], HERE, "remap image:=/front/image/compressed instead"),
    ("text", [TEXT], [], HERE, "carries std_msgs/msg/String (from /talker), but this node takes sensor_msgs"),
    ("only the other", [], [PACKED], HERE, "set the parameter transport to auto"),
    ("other reliability", [SHAKY], [], Listening(NAMES, "raw", reliable=True), "reliability to best_effort"),
    ("latched beside another", [LATCHED, RAW], [], HERE, "transient local"),
    ("latched, not reliable", [Offer("/m", TYPES["raw"], False, True)], [], HERE, "transient local"),
    ("lost", [RAW], [], Listening(NAMES, "raw", lost=7), "(7 images were lost on the way): large raw images"),
    ("silent", [RAW], [], HERE, "check that the camera sends"),
    ("packed and silent", [], [PACKED], Listening(NAMES, "compressed"), "the camera's driver"),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "packed", "how", "said"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_the_cause_and_the_remedy(raw: list[Offer], packed: list[Offer], how: Listening, said: str) -> None:
    assert said in why_nothing({"raw": raw, "compressed": packed}, how)


offers = st.builds(
    Offer, st.just("/n"), st.sampled_from([*TYPES.values(), "a/msg/B"]), st.booleans(), st.booleans()
)


@given(
    st.lists(offers, max_size=3),
    st.lists(offers, max_size=3),
    st.sampled_from(["raw", "compressed"]),
    st.booleans(),
    st.integers(0, 3),
)
def test_there_is_always_a_cause_and_a_wrong_type_is_never_kept_back(
    raw: list[Offer], packed: list[Offer], kind: str, reliable: bool, lost: int
) -> None:
    said = why_nothing({"raw": raw, "compressed": packed}, Listening(NAMES, kind, reliable, lost=lost))
    assert said and ": " in said
    wrong = [o for k, found in (("raw", raw), ("compressed", packed)) for o in found if o.type != TYPES[k]]
    if wrong and len(wrong) == len(raw) + len(packed):
        assert any(offer.type in said for offer in wrong)


def test_several_publishers_are_named() -> None:
    assert who_else("/a", [RAW], False) == "" == who_else("/a", [], False)
    assert who_else("/a", [RAW, LATCHED], False).startswith("2 publishers send to /a (/cam, /map)")
    assert "several clocks" in who_else("/a", [RAW], True)


def test_what_is_kept_for_those_who_come_late() -> None:
    assert keeps_the_last([LATCHED]) and not keeps_the_last([LATCHED, RAW]) and not keeps_the_last([])


def test_losses_are_set_against_what_was_sent_not_against_what_was_taken() -> None:
    meter = LossMeter()
    for second in range(5):  # 30 a second are sent, one is taken, three are lost
        meter.took(second, 1 + 30 * second)
        meter.lost(second, 3)
    assert meter.counts(4.0) == (121, 15)
    assert meter.counts(4.0 + LOSS_WINDOW + 1)[1] == 0
    untold = LossMeter()  # by a middleware without sequence numbers
    for second in range(5):
        untold.took(second, None)
        untold.lost(second, 3)
    assert untold.counts(4.0) == (20, 15)
