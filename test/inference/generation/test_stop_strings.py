# SPDX-License-Identifier: Apache-2.0
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.inference.generation.stop_strings import StopFilter

LETTERS = st.text("ab.", max_size=12)


@given(st.lists(LETTERS, max_size=8), st.lists(st.text("ab.", min_size=1, max_size=4), max_size=3))
def test_what_is_shown_is_the_text_before_the_first_stop_to_complete(
    deltas: list[str], stops: list[str]
) -> None:
    filtered = StopFilter(stops)
    shown, given_text = "", ""
    for delta in deltas:
        shown += filtered.push(delta)
        given_text += delta
        assert given_text.startswith(shown)
        if filtered.stopped:
            break
    if filtered.stopped:
        assert all(stop not in shown for stop in stops)
        assert any(given_text.startswith(shown + stop) for stop in stops)
    else:
        assert shown + filtered.flush() == given_text
        assert all(stop not in given_text for stop in stops)


def test_only_what_may_begin_a_stop_text_waits() -> None:
    filtered = StopFilter(["###"])
    assert [filtered.push(text) for text in ("a#", "b##", "#c")] == ["a", "#b", ""]
    assert filtered.stopped
