# SPDX-License-Identifier: Apache-2.0
"""Completions and chunks as the OpenAI API tells them; what it has no place for is under `mobilevlm`."""

from __future__ import annotations

import secrets
from time import time
from typing import Any

from mobilevlm_ros.inference.types import TokenLogprob
from mobilevlm_ros.server.services.service import Reply

Json = dict[str, Any]


class Completion:
    """One completion on its way.

    Args:
        model: as the client calls it.
        choices: of the request.
    """

    def __init__(self, model: str, choices: tuple[str, ...] = ()) -> None:
        self._head: Json = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "object": "chat.completion",
            "created": int(time()),
            "model": model,
        }
        self._choices = choices

    def whole(self, reply: Reply) -> Json:
        """The completion of a reply."""
        message = {"role": "assistant", "content": reply.answer.text, "refusal": None}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": _logprobs(reply),
            "finish_reason": _finish(reply),
        }
        return {
            **self._head,
            "system_fingerprint": reply.model,
            "choices": [choice],
            "usage": usage(reply),
            "mobilevlm": self.extras(reply),
        }

    def chunk(self, delta: Json, reply: Reply | None = None) -> Json:
        """A piece of the answer; with the reply, the last one, which holds the logprobs of all tokens."""
        choice = {
            "index": 0,
            "delta": delta,
            "logprobs": None if reply is None else _logprobs(reply),
            "finish_reason": None if reply is None else _finish(reply),
        }
        made = {**self._head, "object": "chat.completion.chunk", "choices": [choice]}
        if reply is not None:
            made |= {"system_fingerprint": reply.model, "mobilevlm": self.extras(reply)}
        return made

    def usage_chunk(self, reply: Reply) -> Json:
        """The token counts, after the last piece."""
        return {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage(reply)}

    def extras(self, reply: Reply) -> Json:
        """Confidence, probabilities, where the picture came from, and where the time went."""
        answer, latency = reply.answer, reply.answer.latency
        return {
            "confidence": answer.confidence,
            "choice_probabilities": dict(zip(self._choices, answer.choice_probabilities, strict=False)),
            "calibrated": answer.calibrated,
            "abstained": answer.abstained,
            "best_guess": answer.best_guess,
            "finish_reason": answer.finish_reason,
            "session_turn": answer.session_turn,
            "forgotten_turns": answer.forgotten_turns,
            "camera": reply.camera,
            "stamp": stamp(reply.stamp_ns),
            "stamps": [stamp(stamp_ns) for stamp_ns in reply.stamps_ns],
            "frame_id": reply.frame_id,
            "model_id": reply.model,
            "backend": reply.backend,
            "latency": {
                "queue": latency.queue,
                "encode": latency.encode,
                "prefill": latency.prefill,
                "decode": latency.decode,
                "total": reply.total,
            },
        }


def usage(reply: Reply) -> Json:
    """Token counts; those that came from the KV cache among the prompt's."""
    answer = reply.answer
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.generated_tokens,
        "total_tokens": answer.prompt_tokens + answer.generated_tokens,
        "prompt_tokens_details": {"cached_tokens": answer.reused_tokens, "audio_tokens": 0},
    }


def stamp(stamp_ns: int) -> Json | None:
    """A stamp as ROS writes it; None for a picture that has none."""
    if not stamp_ns:
        return None
    seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
    return {"sec": seconds, "nanosec": nanoseconds}


def model_list(names: dict[str, str], created: int) -> Json:
    """The models: names, and what each stands for."""
    return {
        "object": "list",
        "data": [
            {
                "id": name,
                "object": "model",
                "created": created,
                "owned_by": "mobilevlm_ros",
                "description": text,
            }
            for name, text in names.items()
        ],
    }


class GrowingText:
    """Pieces of an answer such that together they are exactly its text, which is stripped."""

    def __init__(self) -> None:
        self._sent = ""
        self._held = ""

    def push(self, delta: str) -> str:
        """What may be sent of a new piece."""
        text = self._held + delta
        if not self._sent:
            text = text.lstrip()
        ready = text.rstrip()
        self._held = text[len(ready) :]
        self._sent += ready
        return ready

    def rest(self, whole: str) -> str:
        """What is missing once the whole text is known."""
        return whole[len(self._sent) :] if whole.startswith(self._sent) else ""


def _logprobs(reply: Reply) -> Json | None:
    """Of each token; None where they were not asked for."""
    if not reply.answer.logprobs:
        return None
    content = [
        {**_token(token), "top_logprobs": [_token(other) for other in token.top]}
        for token in reply.answer.logprobs
    ]
    return {"content": content, "refusal": None}


def _token(token: TokenLogprob) -> Json:
    # JSON has no minus infinity; the API tells -9999.0 for what cannot be.
    return {"token": token.text, "logprob": max(token.logprob, -9999.0), "bytes": list(token.content)}


def _finish(reply: Reply) -> str:
    return "length" if reply.answer.finish_reason == "length" else "stop"
