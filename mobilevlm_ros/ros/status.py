# SPDX-License-Identifier: Apache-2.0
"""From errors to the status codes of mobilevlm_msgs/Status."""

from __future__ import annotations

from mobilevlm_msgs.msg import Status

from mobilevlm_ros.errors import (
    BundleError,
    Busy,
    ContextOverflow,
    EngineError,
    ImageError,
    MobileVLMError,
    OptionError,
    QuestionError,
    RequestCancelled,
    RequestTimeout,
    Unsupported,
    shortened,
)

Status.ok = property(lambda status: status.code == Status.OK)
"""`response.status.ok`: whether there is an answer. Python only; messages of ROS cannot carry methods."""


MAX_MESSAGE = 400
"""Characters of what a status quotes of an error."""


class Refused(MobileVLMError):
    """A request that the node refuses before it reaches the model.

    Attributes:
        code: one of the constants of mobilevlm_msgs/Status.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (Busy, Status.BUSY),
    (RequestTimeout, Status.TIMEOUT),
    (RequestCancelled, Status.CANCELLED),
    (ImageError, Status.INVALID_IMAGE),
    (Unsupported, Status.UNSUPPORTED),  # an OptionError too, so it comes first
    (OptionError, Status.INVALID_PARAMETER),  # likewise a QuestionError
    (QuestionError, Status.INVALID_QUESTION),
    (ContextOverflow, Status.CONTEXT_OVERFLOW),
    (EngineError, Status.ENGINE_ERROR),
    (BundleError, Status.BUNDLE_ERROR),
)


def status_of(error: BaseException) -> Status:
    """The status message of an error; INTERNAL_ERROR where it is not one of ours."""
    if isinstance(error, Refused):
        return Status(code=error.code, message=shortened(str(error), MAX_MESSAGE))
    for kind, code in _CODES:
        if isinstance(error, kind):
            return Status(code=code, message=shortened(str(error), MAX_MESSAGE))
    told = shortened(str(error), MAX_MESSAGE)
    return Status(
        code=Status.INTERNAL_ERROR,
        message=f"unexpected {type(error).__name__}: {told}; its log has the details: please report it",
    )


def name_of(code: int) -> str:
    """'STALE_FRAME' for Status.STALE_FRAME; the number itself where it is not known."""
    for name in dir(Status):
        if name.isupper() and getattr(Status, name) == code:
            return name
    return str(code)
