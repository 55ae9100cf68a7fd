# SPDX-License-Identifier: Apache-2.0
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.engine.bundle import Bundle
from mobilevlm_ros.engine.runtime import load_runtime
from mobilevlm_ros.errors import BundleError
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.choices.calibration import CALIBRATION, Calibration
from mobilevlm_ros.inference.types import Frame, Request


@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=8).filter(lambda values: sum(values) > 0),
    st.floats(0.05, 20),
)
def test_rescaling_keeps_the_order_and_a_sum_of_one(weights: list[float], temperature: float) -> None:
    odds = np.array(weights) / sum(weights)
    scaled = Calibration(temperature).choices(tuple(odds))
    assert sum(scaled) == pytest.approx(1)
    assert all(a >= b - 1e-12 for a, b in zip(np.array(scaled)[odds.argsort()][1:], np.sort(scaled)))
    assert scaled[int(odds.argmax())] == max(scaled)


def test_temperature_one_changes_nothing_and_a_higher_one_doubts() -> None:
    assert Calibration(1.0).choices((0.7, 0.2, 0.1)) == pytest.approx((0.7, 0.2, 0.1))
    assert Calibration(2.0).choices((0.8, 0.2)) == pytest.approx((2 / 3, 1 / 3))


@given(st.text(max_size=60))
def test_any_text_is_a_calibration_or_a_bundle_error(text: str) -> None:
    try:
        Calibration.from_json(text, "file")
    except BundleError as error:
        if "mobilevlm calibrate" not in str(error):
            raise


@pytest.mark.parametrize("temperature", ["0", "-1", "1e9", "NaN", "Infinity", '"warm"'])
def test_a_senseless_temperature_is_refused(temperature: str) -> None:
    with pytest.raises(BundleError, match="fit it again"):
        Calibration.from_json(f'{{"temperature": {temperature}, "questions": 1, "labels": ""}}', "file")


def test_a_bundle_carries_it_and_its_answers_say_so(any_bundle: Path, tmp_path: Path, frame: Frame) -> None:
    path = tmp_path / "bundle"
    shutil.copytree(any_bundle, path)
    plain = Bundle.open(path).remove_file(CALIBRATION)
    assert Calibration.load(plain) is None
    hot = Calibration(2.0, 100, "by hand")
    hot.save(plain)
    assert Calibration.load(Bundle.open(path)) == hot

    runtime = load_runtime(path, "onnxruntime", threads=1)
    request = Request("Is there a cone?", choices=("yes", "no"))
    raw = Assistant(runtime, calibrate=False).ask(frame, request)
    warm = Assistant(runtime).ask(frame, request)
    assert (raw.calibrated, warm.calibrated) == (False, True)
    assert warm.choice_probabilities == pytest.approx(hot.choices(raw.choice_probabilities))
    assert warm.confidence == max(warm.choice_probabilities)
    assert not Assistant(runtime).ask(frame, Request("What is on the left?")).calibrated  # free text is not

    assert CALIBRATION not in Bundle.open(path).remove_file(CALIBRATION).manifest.files
    assert not (path / CALIBRATION).exists()
    assert Calibration.load(Bundle.open(path)) is None
