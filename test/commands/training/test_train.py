# SPDX-License-Identifier: Apache-2.0
import pytest

from mobilevlm_ros.cli import main


@pytest.mark.parametrize(
    ("setting", "message"),
    [("speed=3", "no 'speed'"), ("steps=many", "type int"), ("steps", "type int")],
)
def test_wrong_setting_is_one_line(setting: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "nano", "--set", setting]) == 1
    error = capsys.readouterr().err
    assert error.startswith("mobilevlm: error: --set ") and message in error and error.count("\n") == 1
