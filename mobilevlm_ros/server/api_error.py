# SPDX-License-Identifier: Apache-2.0
"""Errors as the OpenAI API tells them: an HTTP status and {"error": {message, type, param, code}}."""

from __future__ import annotations

from typing import Any

from mobilevlm_ros.errors import (
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
)
from mobilevlm_ros.server.services.service import Refusal


class ApiError(Exception):
    """A request that ends without an answer.

    Attributes:
        status: of HTTP.
        message: a sentence that says what was wrong and what to do.
        code: one word for programs.
        param: the field of the request that is wrong; None where it is not a field.
        retry_after: seconds after which the same request may work; 0: it will not.
    """

    def __init__(
        self, status: int, message: str, code: str, param: str | None = None, retry_after: int = 0
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """The error object."""
        return {
            "error": {
                "message": self.message,
                "type": _TYPES.get(self.status, "server_error" if self.status >= 500 else INVALID),
                "param": self.param,
                "code": self.code,
            }
        }

    def headers(self) -> dict[str, str]:
        """Headers that go with the status."""
        headers = {"retry-after": str(self.retry_after)} if self.retry_after else {}
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return headers


def api_error(error: BaseException) -> ApiError:
    """How an error is told. Unexpected ones keep their details to themselves."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, Refusal):
        status, retry = _REFUSALS.get(error.code, (500, 0))
        return ApiError(status, str(error), error.code, retry_after=retry)
    for kind, status, code, retry in _KINDS:
        if isinstance(error, kind):
            return ApiError(status, str(error), code, retry_after=retry)
    return ApiError(500, "an unexpected error: the server's log says where", "internal_error")


INVALID = "invalid_request_error"

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}

_KINDS: tuple[tuple[type[BaseException], int, str, int], ...] = (
    (Busy, 503, "busy", 1),
    (RequestTimeout, 504, "timeout", 0),
    (RequestCancelled, 503, "cancelled", 1),
    (ImageError, 400, "invalid_image", 0),
    (Unsupported, 400, "unsupported", 0),  # an OptionError too, so it comes first
    (OptionError, 400, "invalid_parameter", 0),  # likewise a QuestionError
    (QuestionError, 400, "invalid_question", 0),
    (ContextOverflow, 400, "context_length_exceeded", 0),
    (EngineError, 500, "engine_error", 0),
    (MobileVLMError, 500, "error", 0),
)

_REFUSALS: dict[str, tuple[int, int]] = {
    "unknown_camera": (404, 0),
    "frame_not_found": (404, 0),
    "no_frame": (503, 1),
    "stale_frame": (503, 1),
    "not_active": (503, 1),
    "node_unavailable": (503, 1),
    "busy": (503, 1),
    "cancelled": (503, 1),
    "timeout": (504, 0),
    "invalid_image": (400, 0),
    "invalid_question": (400, 0),
    "invalid_parameter": (400, 0),
    "context_overflow": (400, 0),
    "unsupported": (400, 0),
}
