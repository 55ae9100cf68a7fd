# SPDX-License-Identifier: Apache-2.0
"""What the servers read and write of the messages: the service and the action have the same fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from mobilevlm_msgs.msg import CameraAnswer, Latency, Status, TokenLogprob
from std_msgs.msg import Header


class AskFields(Protocol):
    """What is asked: AskImage.Request of the service, or AskImage.Goal of the action. msg/srv/AskImage.srv
    says what each field means.
    """

    question: str
    choices: Sequence[str]
    abstain_threshold: float
    answer_format: str
    minimum: float
    maximum: float
    json_schema: str
    pattern: str
    grammar: str
    camera: str
    image: Any
    compressed_image: Any
    stamp: Any
    frames: int
    frame_interval: float
    max_age: float
    wait_for_frame: float
    roi: Any
    roi_with_frame: bool
    session: str
    reset_session: bool
    history: Sequence[str]
    new_frame: bool
    system_prompt: str
    preset: str
    timeout: float
    max_tokens: int
    temperature: float
    top_p: float
    repetition_penalty: float
    seed: int
    stop: Sequence[str]
    logprobs: bool
    top_logprobs: int


class CameraPart(Protocol):
    """What a response says about one camera: mobilevlm_msgs/msg/CameraAnswer, or all of a response."""

    status: Status
    header: Header
    camera: str
    answer: str
    confidence: float
    choice_probabilities: Sequence[float]
    abstained: bool
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    latency: Latency


class AskResult(CameraPart, Protocol):
    """What is answered: AskImage.Response of the service, or AskImage.Result of the action."""

    frame_headers: Sequence[Header]
    choices: Sequence[str]
    calibrated: bool
    session_turn: int
    model_id: str
    backend: str
    logprobs: Sequence[TokenLogprob]
    answers: Sequence[CameraAnswer]


class Goal(Protocol):
    """What the action's server reads and does of a goal: rclpy's ServerGoalHandle."""

    request: AskFields
    goal_id: Any
    is_cancel_requested: bool

    def publish_feedback(self, feedback: Any) -> None:
        """To whoever sent it."""

    def succeed(self) -> None:
        """It ended with an answer."""

    def canceled(self) -> None:
        """It ended because its client withdrew it."""

    def abort(self) -> None:
        """It ended without an answer."""
