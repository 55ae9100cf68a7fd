# SPDX-License-Identifier: Apache-2.0
"""Prompt templates: how a conversation becomes the one string the language model continues.

The texts are those of the conversations MobileVLM was trained and released with (`v1`), and of the others its
code names. They are data: change a space and the answers change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mobilevlm_ros.errors import QuestionError

IMAGE_PLACEHOLDER = "<image>"


@dataclass(frozen=True)
class Template:
    """The fixed strings around questions and answers. `opening` is everything before the first question, and
    `system` the part of it that tells the model what it is.
    """

    opening: str
    user: str
    assistant: str
    answer_start: str
    answer_end: str
    stop: str
    system: str = ""

    def with_system(self, system: str) -> Template:
        """The same template with another system prompt; what surrounds it stays."""
        return replace(self, system=system, opening=self.opening.replace(self.system, system, 1))

    def render(self, turns: Sequence[tuple[str, str | None]]) -> str:
        """One prompt from (question, answer) pairs; where the last answer is None, the model continues.

        Raises QuestionError when there is no turn, or when an answer other than the last is missing.
        """
        if not turns:
            raise QuestionError("a conversation needs at least one question")
        text = self.opening
        for index, (question, answer) in enumerate(turns):
            text += (self.user if index else "") + question + self.assistant
            if answer is not None:
                text += self.answer_start + answer + self.answer_end
            elif index != len(turns) - 1:
                raise QuestionError(
                    f"turn {index + 1} of {len(turns)} has no answer; only the last turn may be open"
                )
        return text


def image_question(question: str, images: int = 1) -> str:
    """The user's message about its images: each image and a newline, then the question.

    A placeholder typed inside the question is removed, because every placeholder consumes an image.
    """
    return f"{IMAGE_PLACEHOLDER}\n" * images + question.replace(IMAGE_PLACEHOLDER, "")


def choice_question(question: str, choice: str) -> str:
    """The yes-or-no question whether `choice` answers `question`, in the words that nano has learnt."""
    return f"{question} {choice}? Yes or no?"


def _dialogue(
    system: str, user: str, assistant: str, after_system: str, after_user: str, after_answer: str
) -> Template:
    return Template(
        opening=f"{system}{after_system}{user}: ",
        user=f"{user}: ",
        assistant=f"{after_user}{assistant}:",
        answer_start=" ",
        answer_end=after_answer,
        stop=after_answer,
        system=system,
    )


def _llama_2(system: str) -> Template:
    return Template(
        opening=f"[INST] <<SYS>>\n{system}\n<</SYS>>\n\n",
        user="<s>[INST] ",
        assistant=" [/INST]",
        answer_start=" ",
        answer_end=" </s>",
        stop="</s>",
        system=system,
    )


_USER_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
_HUMAN_SYSTEM = _USER_SYSTEM.replace("user", "human")

# The `vicuna_v0` conversation opens with a worked example.
_HUMAN_EXAMPLE = (
    "Human: What are the key differences between renewable and non-renewable energy "
    "sources?###Assistant: Renewable energy sources are those that can be replenished naturally in a "
    "relatively short amount of time, such as solar, wind, hydro, geothermal, and biomass. "
    "Non-renewable energy sources, on the other hand, are finite and will eventually be depleted, "
    "such as coal, oil, and natural gas. Here are some key differences between renewable and "
    "non-renewable energy sources:\n"
    "1. Availability: Renewable energy sources are virtually inexhaustible, while non-renewable "
    "energy sources are finite and will eventually run out.\n"
    "2. Environmental impact: Renewable energy sources have a much lower environmental impact than "
    "non-renewable sources, which can lead to air and water pollution, greenhouse gas emissions, and "
    "other negative effects.\n"
    "3. Cost: Renewable energy sources can be more expensive to initially set up, but they typically "
    "have lower operational costs than non-renewable sources.\n"
    "4. Reliability: Renewable energy sources are often more reliable and can be used in more remote "
    "locations than non-renewable sources.\n"
    "5. Flexibility: Renewable energy sources are often more flexible and can be adapted to "
    "different situations and needs, while non-renewable sources are more rigid and inflexible.\n"
    "6. Sustainability: Renewable energy sources are more sustainable over the long term, while "
    "non-renewable sources are not, and their depletion can lead to economic and social "
    "instability.\n"
    "###"
)

_LLAMA_2_SYSTEM = (
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, "
    "while being safe.  Your answers should not include any harmful, unethical, racist, sexist, "
    "toxic, dangerous, or illegal content. Please ensure that your responses are socially unbiased "
    "and positive in nature.\n"
    "\n"
    "If a question does not make any sense, or is not factually coherent, explain why instead of "
    "answering something not correct. If you don't know the answer to a question, please don't share "
    "false information."
)
_LLAVA_LLAMA_2_SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content "
    "that the user provides, and assist the user with a variety of tasks using natural language."
)

_V1 = _dialogue(_USER_SYSTEM, "USER", "ASSISTANT", after_system=" ", after_user=" ", after_answer="</s>")

TEMPLATES: dict[str, Template] = {
    "v1": _V1,
    "vicuna_v1": _V1,
    "vicuna_v0": _dialogue(
        _HUMAN_SYSTEM,
        "Human",
        "Assistant",
        after_system="###" + _HUMAN_EXAMPLE,
        after_user="###",
        after_answer="###",
    ),
    # Caption pre-training: the image, its caption, a newline; no roles. An open turn is the bare image.
    "plain": Template(opening="", user="", assistant="", answer_start="", answer_end="\n", stop="\n"),
    "llama_2": _llama_2(_LLAMA_2_SYSTEM),
    "llava_llama_2": _llama_2(_LLAVA_LLAMA_2_SYSTEM),
}
