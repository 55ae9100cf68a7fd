# SPDX-License-Identifier: Apache-2.0
import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.inference.structured.decimals import decimal_pattern

ENDS = st.floats(-1e15, 1e15) | st.decimals(-1000, 1000, places=6).map(float) | st.integers(-200, 200)


def matches(low: float, high: float, places: int, text: str) -> bool:
    pattern = decimal_pattern(low, high, places)
    return bool(pattern and re.fullmatch(pattern, text))


def written(number: int, places: int) -> str:
    """number / 10^places in plain notation."""
    digits = str(abs(number)).zfill(places + 1)
    text = digits[: len(digits) - places] + ("." + digits[len(digits) - places :] if places else "")
    return f"-{text}" if number < 0 else text


@given(ENDS, ENDS, st.integers(0, 6), st.data())
def test_matches_exactly_the_numbers_of_the_range(
    one: float, other: float, places: int, data: st.DataObject
) -> None:
    low, high = sorted((one, other))
    count = data.draw(st.integers(0, places))
    scale = 10**count
    near = st.sampled_from([round(Fraction(end) * scale) for end in (low, high)])
    number = data.draw(
        st.tuples(near, st.integers(-2, 2)).map(sum) | st.integers(-(10**15) * scale, 10**15 * scale)
    )
    inside = Fraction(low) <= Fraction(number, scale) <= Fraction(high)
    assert matches(low, high, places, written(number, count)) == inside


@pytest.mark.parametrize("text", ["", "-", "-0", "-0.0", "007", "+3", ".5", "1.", "1e1", "0x1", "1.0000001"])
def test_other_notations_do_not_match(text: str) -> None:
    assert not matches(-1e15, 1e15, 6, text)


def test_a_range_without_numbers_has_no_pattern() -> None:
    assert decimal_pattern(0.2, 0.8, 0) == ""
    assert decimal_pattern(1e-9, 2e-9, 6) == ""


def test_everyday_ranges_are_short() -> None:
    assert decimal_pattern(0, 100, 0) == "[0-9]|[1-9][0-9]|100"
    assert len(decimal_pattern(-999_999_999_999_999, 999_999_999_999_999, 6)) < 10_000
