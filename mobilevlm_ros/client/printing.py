# SPDX-License-Identifier: Apache-2.0
"""An answer for people: the same lines with and without ROS. Needs no ROS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mobilevlm_ros.inference.types import Answer


def answer_lines(
    answer: str, confidence: float, odds: Mapping[str, float], latency: Mapping[str, float], model: str
) -> list[str]:
    """The answer, its confidence with what it cost, and the probability of each choice: a line each.

    Args:
        odds: from the choices to their probabilities.
        latency: seconds; keys queue, encode, prefill, decode, total.
        model: what answered, such as 'nano on onnxruntime-cpu'.
    """
    parts = ", ".join(
        f"{part} {latency[part] * 1000:.0f}" for part in ("queue", "encode", "prefill", "decode")
    )
    return [
        answer,
        f"  confidence {confidence:.3f}, {latency['total'] * 1000:.0f} ms ({parts}), {model}",
        *(f"  {choice}: {p:.3f}" for choice, p in odds.items()),
    ]


def logprobs_of(answer: Answer) -> list[dict[str, Any]]:
    """Log-probabilities of an answer's tokens, named and shaped as mobilevlm_msgs/TokenLogprob has them."""
    return [
        {
            "text": token.text,
            "content": list(token.content),
            "logprob": token.logprob,
            "top_texts": [other.text for other in token.top],
            "top_logprobs": [other.logprob for other in token.top],
        }
        for token in answer.logprobs
    ]


def logprob_lines(tokens: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each token: its text and log-probability, then the most probable ones at its place."""
    lines = []
    for token in tokens:
        top = zip(token["top_texts"], token["top_logprobs"], strict=True)
        others = ", ".join(f"{text!r} {logprob:.3f}" for text, logprob in top)
        lines.append(f"  {token['text']!r}: {token['logprob']:.3f}{f'  ({others})' if others else ''}")
    return lines


class Typewriter:
    """Prints pieces of text as they come, without the space at the text's beginning and end.

    Attributes:
        begun: whether anything of the text at hand was printed.
    """

    def __init__(self) -> None:
        self.begun = False
        self._held = ""  # white space that may be the end

    def __call__(self, delta: str) -> None:
        text = self._held + delta
        text = text if self.begun else text.lstrip()
        shown = text.rstrip()
        self._held = text[len(shown) :]
        self.begun = self.begun or bool(shown)
        print(shown, end="", flush=True)

    def end(self) -> None:
        """Ends the line that was begun, so that what follows gets its own."""
        if self.begun:
            print(flush=True)
        self.begun, self._held = False, ""
