# SPDX-License-Identifier: Apache-2.0
"""What goes into the assistant and what comes out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False, repr=False)
class Frame:
    """A picture with the header it came with.

    Attributes:
        image: u8[H, W, 3], RGB.
        stamp_ns: acquisition time in nanoseconds of the source's clock; 0 when unknown.
        frame_id: coordinate frame of the camera (REP-103 optical frame); may be empty.
        camera: name of the configured camera; empty for the default camera or a picture from a file.
        run: of the source's time; another number after it jumped back (a bag that loops, a simulation that
            starts again).
    """

    image: NDArray[np.uint8]
    stamp_ns: int = 0
    frame_id: str = ""
    camera: str = ""
    run: int = 0

    def __repr__(self) -> str:
        size = "x".join(map(str, np.shape(self.image)[1::-1]))
        return f"Frame({size}, stamp_ns={self.stamp_ns}, frame_id={self.frame_id!r}, camera={self.camera!r})"


Frames: TypeAlias = "Frame | Sequence[Frame]"
"""What one question is about: a frame, or several, oldest first."""


@dataclass(frozen=True)
class Region:
    """A rectangle in a picture, in its pixels: x and y of the left upper corner, and the size (> 0)."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class SamplingParams:
    """How an answer's tokens are chosen, and when it ends.

    Attributes:
        max_tokens: most tokens that are generated, 1 to 4096.
        temperature: 0 is greedy; above 0 samples (finite).
        top_p: nucleus of the sampled distribution, in (0, 1].
        seed: of the sampling (>= 0); the same seed gives the same answer.
        repetition_penalty: above 1 makes tokens that the answer already holds less probable (0.5 to 2; 1 is
            off).
        stop: texts that end the answer where they appear; they are not part of it. At most 16.
        logprobs: report the log-probability of each token (`Answer.logprobs`).
        top_logprobs: with logprobs, also the most probable tokens at each place; 0 to 20.
    """

    max_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    top_logprobs: int = 0


@dataclass(frozen=True)
class AnswerFormat:
    r"""What an answer looks like.

    Attributes:
        kind: '' (free text, or one of the request's choices), 'integer', 'number', 'choice_list', 'json',
            'regex' or 'grammar'.
        minimum, maximum: range of an 'integer' or 'number', where minimum < maximum; both 0: any.
        json_schema: the JSON Schema of a 'json' answer, as text.
        pattern: the regular expression that a whole 'regex' answer matches, in the syntax of Rust's `regex`
            (no look-around, no back-references); `\d` is 0 to 9.
        grammar: the grammar of a 'grammar' answer, in llguidance's dialect of Lark; it begins with `start`.
    """

    kind: str = ""
    minimum: float = 0.0
    maximum: float = 0.0
    json_schema: str = ""
    pattern: str = ""
    grammar: str = ""


@dataclass(frozen=True)
class Request:
    """A question about one frame, or about several at once.

    Attributes:
        question: plain language, 1 to 2000 characters.
        choices: when given, the answer is one of them and each gets a probability; nothing is generated.
        abstain_threshold: in [0, 1]; an answer whose confidence is lower is withheld (Answer.abstained).
        system_prompt: text before the conversation; empty: the session's, else the assistant's own.
        region: the part of the picture that is asked about; None: all of it (in a session, on the frame of
            the question before: the part that one was about). Not with several frames.
        region_with_frame: with a region, show the whole picture and the part; else the part alone.
        sampling: how the answer's tokens are chosen, and when it ends.
        answer_format: what the answer looks like.
    """

    question: str
    choices: tuple[str, ...] = ()
    abstain_threshold: float = 0.0
    system_prompt: str = ""
    region: Region | None = None
    region_with_frame: bool = False
    sampling: SamplingParams = SamplingParams()
    answer_format: AnswerFormat = AnswerFormat()


@dataclass(frozen=True)
class Latency:
    """Where the time went, in seconds of wall clock.

    Attributes:
        queue: from submission to the first work on it.
        encode: preprocessing and vision encoder; 0 when the frame's prefix was reused.
        prefill: language model over the prompt (only what was not reused), and over the choices.
        decode: generation of the answer's tokens; 0 with choices.
    """

    queue: float = 0.0
    encode: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0

    @property
    def total(self) -> float:
        """Sum of the parts, in seconds."""
        return self.queue + self.encode + self.prefill + self.decode


@dataclass(frozen=True)
class TokenLogprob:
    """How probable a token was where it stands.

    Attributes:
        token_id: its id.
        text: what it stands for, with the space that it begins with; U+FFFD for a part of a character.
        content: the same as bytes. Joined, those of an answer are its text (before it is stripped and stop
            texts are cut off).
        logprob: natural logarithm of its probability under the model at temperature 1; with an answer format,
            among the tokens that could stand there.
        top: the most probable tokens at its place, best first, whether chosen or not; they have no `top`.
    """

    token_id: int
    text: str
    content: bytes
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, repr=False)
class Answer:
    """What the model said about a frame, or about several at once.

    Attributes:
        text: the answer, stripped; one of the choices where there were choices; empty when abstained.
        confidence: in [0, 1]; the probability of the least sure token of the answer, or of the choice.
        choice_probabilities: one for each choice in the order of the request, summing to 1 (in a
            'choice_list' each on its own: that it applies); empty without choices.
        latency: the split, in seconds.
        prompt_tokens: positions of the whole prompt, image tokens included, reused ones too.
        reused_tokens: how many of them came from the prefix cache.
        generated_tokens: tokens sampled, the stop token not counted; 0 with choices.
        finish_reason: 'stop' (the model ended, or a stop text appeared), 'length' (max_tokens reached), or
            'choice'.
        abstained: the confidence was below the request's abstain_threshold.
        best_guess: what the answer would have been, when abstained; else empty.
        calibrated: confidence and probabilities were rescaled by the bundle's calibration.
        session_turn: 1 for the first question of a session, 2 for the next; 0 without a session.
        forgotten_turns: oldest turns of the session that no longer fit and were left out for good.
        logprobs: of each generated token, the stop token not included; empty unless `SamplingParams.logprobs`
            asked for them, and with choices (which are not generated).
        choices: of the request; empty for free text.
    """

    text: str
    confidence: float
    choice_probabilities: tuple[float, ...] = ()
    latency: Latency = field(default_factory=Latency)
    prompt_tokens: int = 0
    reused_tokens: int = 0
    generated_tokens: int = 0
    finish_reason: str = "stop"
    abstained: bool = False
    best_guess: str = ""
    calibrated: bool = False
    session_turn: int = 0
    forgotten_turns: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    choices: tuple[str, ...] = ()

    def above(self, threshold: float) -> Answer:
        """This answer, or an abstention where its confidence is below the threshold (0 to 1)."""
        if self.confidence >= threshold:
            return self
        return replace(self, text="", abstained=True, best_guess=self.text)

    def with_queue_time(self, seconds: float) -> Answer:
        """This answer with the time that it waited for its turn, in seconds."""
        return replace(self, latency=replace(self.latency, queue=max(0.0, seconds)))

    @property
    def probabilities(self) -> dict[str, float]:
        """The probability of each choice, by its text; empty without choices."""
        return dict(zip(self.choices, self.choice_probabilities))

    def __str__(self) -> str:
        """The text, or that it was withheld."""
        if self.abstained:
            return f"(not sure: {self.best_guess!r} with confidence {self.confidence:.2f})"
        return self.text

    def __repr__(self) -> str:
        odds = "".join(f", {choice}: {p:.2f}" for choice, p in self.probabilities.items())
        guess = f", abstained, best_guess={self.best_guess!r}" if self.abstained else ""
        return f"Answer({self.text!r}, confidence={self.confidence:.2f}{guess}{odds})"
