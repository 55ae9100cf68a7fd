# SPDX-License-Identifier: Apache-2.0
"""Answers, and reasons why there is none, as messages."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING

from mobilevlm_msgs.msg import CameraAnswer, Status
from mobilevlm_msgs.msg import Latency as LatencyMessage
from mobilevlm_msgs.msg import TokenLogprob as TokenLogprobMessage
from std_msgs.msg import Header

from mobilevlm_ros.errors import RequestCancelled, RequestTimeout
from mobilevlm_ros.inference.types import Answer, Frame, Latency, TokenLogprob
from mobilevlm_ros.nodes.services.ask_request import EVERY
from mobilevlm_ros.nodes.services.messages import AskResult, CameraPart
from mobilevlm_ros.ros.stamps import to_message
from mobilevlm_ros.ros.status import status_of

if TYPE_CHECKING:
    from mobilevlm_ros.nodes.services.pending_question import PendingQuestion


def fill(
    result: AskResult, pending: PendingQuestion | None, outcome: Answer | BaseException, arrival: float
) -> None:
    """Write an answer, or the reason why there is none, into a service response or an action result.

    Args:
        arrival: of the request, monotonic seconds.
    """
    if isinstance(outcome, BaseException):
        result.status = status_of(outcome)
        result.latency = LatencyMessage(total=monotonic() - arrival)
        if isinstance(outcome, (RequestTimeout, RequestCancelled)) and pending is not None:
            result.answer = pending.text.strip()
            result.finish_reason = "timeout" if isinstance(outcome, RequestTimeout) else "cancelled"
    else:
        result.status = Status(code=Status.OK, message=_remarks(outcome, pending))
        result.latency = latency_message(outcome.latency, monotonic() - arrival)
        result.answer = outcome.text
        result.confidence = outcome.confidence
        result.choice_probabilities = list(outcome.choice_probabilities)
        result.abstained = outcome.abstained
        result.calibrated = outcome.calibrated
        result.finish_reason = outcome.finish_reason
        result.prompt_tokens = outcome.prompt_tokens
        result.cached_tokens = outcome.reused_tokens
        result.generated_tokens = outcome.generated_tokens
        result.session_turn = outcome.session_turn
        result.logprobs = [_token(token) for token in outcome.logprobs]
        if pending is not None:
            result.choices = list(pending.question.request.choices)
    if pending is not None:
        result.camera = pending.camera
        result.model_id = pending.loaded.model_id
        result.backend = pending.loaded.runtime.backend_name
        if pending.frame is not None:
            result.header = header_of(pending.frame)
        if len(pending.frames) > 1:
            result.frame_headers = [header_of(frame) for frame in pending.frames]


def fill_summary(result: AskResult, parts: Sequence[AskResult], arrival: float) -> None:
    """Write what all cameras answered into one response or result.

    Args:
        parts: a filled response for each camera, in the order of the configuration.
    """
    result.camera = EVERY
    result.answers = [_camera_answer(part) for part in parts]
    failed = [part for part in parts if part.status.code != Status.OK]
    status = failed[0].status if failed else Status(code=Status.OK)
    if failed:
        answered = len(parts) - len(failed)
        tally = f"({answered} of {len(parts)} cameras answered, see answers)"
        status = Status(code=status.code, message=f"{_name(failed[0])}: {status.message} {tally}")
    result.status = status
    if status.code in (Status.OK, Status.TIMEOUT, Status.CANCELLED):
        result.answer = "; ".join(
            f"{_name(part)}: {'(abstained)' if part.abstained else part.answer}"
            for part in parts
            if part.answer or part.abstained
        )
    if not failed:
        result.abstained = all(part.abstained for part in parts)
        result.calibrated = all(part.calibrated for part in parts)
        result.confidence = min(part.confidence for part in parts)
        result.session_turn = min(part.session_turn for part in parts)
        if result.abstained:
            result.answer = ""
            result.status.message = "; ".join(f"{_name(part)}: {part.status.message}" for part in parts)
    reasons = [part.finish_reason for part in parts]
    result.finish_reason = next((r for r in _BY_GRAVITY if r in reasons), "")
    for name in ("prompt_tokens", "cached_tokens", "generated_tokens"):
        setattr(result, name, sum(getattr(part, name) for part in parts))
    result.latency = LatencyMessage(
        queue=min(part.latency.queue for part in parts),
        total=monotonic() - arrival,
        **{name: sum(getattr(part.latency, name) for part in parts) for name in _STAGES},
    )
    result.model_id = next((part.model_id for part in parts if part.model_id), "")
    result.backend = next((part.backend for part in parts if part.backend), "")


def header_of(frame: Frame) -> Header:
    """The header that a frame came with."""
    return Header(stamp=to_message(frame.stamp_ns), frame_id=frame.frame_id)


def latency_message(latency: Latency, total: float) -> LatencyMessage:
    """The latency split as a message, seconds."""
    return LatencyMessage(
        queue=latency.queue,
        encode=latency.encode,
        prefill=latency.prefill,
        decode=latency.decode,
        total=total,
    )


def _token(token: TokenLogprob) -> TokenLogprobMessage:
    return TokenLogprobMessage(
        text=token.text,
        content=list(token.content),
        logprob=token.logprob,
        top_texts=[other.text for other in token.top],
        top_logprobs=[other.logprob for other in token.top],
    )


def _remarks(answer: Answer, pending: PendingQuestion | None) -> str:
    remarks = []
    if answer.abstained and pending is not None:
        threshold = pending.question.request.abstain_threshold
        remarks.append(
            f"the best guess {answer.best_guess!r} has confidence {answer.confidence:.2f}, below "
            f"abstain_threshold {threshold:g}"
        )
    if not answer.text and not answer.abstained:
        remarks.append(
            "the answer is empty: the model ended it at once, or said one of the stop texts first; word the "
            "question otherwise, or stop later"
        )
    if answer.forgotten_turns:
        where = "session no longer fit and were forgotten (session_tokens)"
        if pending is not None and pending.question.said:
            where = "history do not fit the model's context and were left out"
        remarks.append(f"{answer.forgotten_turns} earlier turns of the {where}")
    if pending is not None and pending.question.camera is not None and not pending.question.stamp_ns:
        remarks.append(pending.question.camera.trouble(pending.question.max_age))
    return "; ".join(filter(None, remarks))


def _camera_answer(part: AskResult) -> CameraAnswer:
    return CameraAnswer(**{name: getattr(part, name) for name in CameraAnswer.get_fields_and_field_types()})


def _name(part: CameraPart) -> str:
    return part.camera or "camera"


_STAGES = ("encode", "prefill", "decode")
_BY_GRAVITY = ("cancelled", "timeout", "length", "stop", "choice")
