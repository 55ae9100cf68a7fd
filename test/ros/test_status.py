# SPDX-License-Identifier: Apache-2.0
"""Errors as status messages; needs ROS's messages, but no graph."""

from __future__ import annotations

import pytest

pytest.importorskip("mobilevlm_msgs")

from mobilevlm_msgs.msg import Status

from mobilevlm_ros import errors
from mobilevlm_ros.errors import contained
from mobilevlm_ros.ros.status import Refused, name_of, status_of

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]


@pytest.mark.parametrize("kind", [*KINDS, RuntimeError, KeyError], ids=lambda kind: kind.__name__)
def test_no_error_makes_a_status_that_grows_with_what_a_client_sent(kind: type[Exception]) -> None:
    text = f"camera {'x' * 10_000_000!r} is unknown: use 'front'"
    status = status_of(kind(text))
    assert len(status.message) <= 500
    assert "camera 'xxx" in status.message and "use 'front'" in status.message  # what, and what to do
    assert name_of(status.code).isupper()
    assert kind("short: do this").args[0] in status_of(kind("short: do this")).message


def test_a_refusal_keeps_its_code() -> None:
    assert status_of(Refused(Status.NO_FRAME, "none")) == Status(code=Status.NO_FRAME, message="none")


def test_what_is_no_exception_becomes_an_engine_error() -> None:
    assert status_of(contained(SystemExit(1))).code == Status.ENGINE_ERROR
    error = ValueError("kept")
    assert contained(error) is error
