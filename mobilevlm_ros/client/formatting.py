# SPDX-License-Identifier: Apache-2.0
"""What a response says, for people and for programs."""

from __future__ import annotations

from typing import Any

from mobilevlm_msgs.msg import Status

from mobilevlm_ros.ros.status import name_of


def as_dict(response: Any) -> dict[str, Any]:
    """What a response (or a camera's part of one) says, for JSON."""
    stamp = response.header.stamp
    latency = response.latency
    odds = list(map(float, response.choice_probabilities))
    told = {
        "status": name_of(response.status.code),
        "message": response.status.message,
        "answer": response.answer,
        "confidence": response.confidence,
        "abstained": response.abstained,
        "camera": response.camera,
        "stamp": stamp.sec + stamp.nanosec * 1e-9,
        "frame_id": response.header.frame_id,
        "finish_reason": response.finish_reason,
        "prompt_tokens": response.prompt_tokens,
        "cached_tokens": response.cached_tokens,
        "generated_tokens": response.generated_tokens,
        "latency": {
            part: getattr(latency, part) for part in ("queue", "encode", "prefill", "decode", "total")
        },
    }
    if not hasattr(response, "answers"):  # one camera of all
        return {**told, "choice_probabilities": odds}
    return {
        **told,
        "choice_probabilities": dict(zip(response.choices, odds, strict=True)),
        "calibrated": response.calibrated,
        "session_turn": response.session_turn,
        "model_id": response.model_id,
        "backend": response.backend,
        "answers": [as_dict(answer) for answer in response.answers],
    }


def as_text(response: Any, answer: bool = True) -> str:
    """What a response says, for people; without the answer itself where that was shown already."""
    lines = [_outcome(response)] if answer or response.status.code != Status.OK else []
    if response.answers:
        lines += [
            f"  {part.camera or 'camera'}: {_outcome(part)}{_confidence(part)}" for part in response.answers
        ]
    elif response.status.code != Status.OK:
        return lines[0]
    lines += [
        f"  {choice}: {p:.3f}"
        for choice, p in zip(response.choices, response.choice_probabilities, strict=True)
    ]
    latency = response.latency
    lines.append(
        f"  confidence {response.confidence:.3f}, {latency.total * 1000:.0f} ms "
        f"(queue {latency.queue * 1000:.0f}, "
        f"encode {latency.encode * 1000:.0f}, prefill {latency.prefill * 1000:.0f}, "
        f"decode {latency.decode * 1000:.0f}), {response.model_id} on {response.backend}"
    )
    return "\n".join(lines)


def _outcome(part: Any) -> str:
    if part.status.code != Status.OK:
        return f"{name_of(part.status.code)}: {part.status.message}"
    return f"(abstained) {part.status.message}" if part.abstained else str(part.answer)


def _confidence(part: Any) -> str:
    return f" ({part.confidence:.3f})" if part.status.code == Status.OK else ""
