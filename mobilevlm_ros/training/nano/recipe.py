# SPDX-License-Identifier: Apache-2.0
"""What decides how nano comes out: its shape, and the stages of its training as data."""

from __future__ import annotations

from dataclasses import dataclass

from mobilevlm_ros.model.config import LanguageConfig, MobileVLMConfig, VisionConfig


@dataclass(frozen=True)
class Stage:
    """What every stage has. `batch` counts rows: one or two pictures and the questions behind them."""

    steps: int
    batch: int
    length: int  # positions of a row: the prompt's opening, the pictures, and about ten questions
    scenes: int
    learning_rate: float
    warmup: int  # steps
    decay: float  # share of the steps over which the rate falls linearly to zero
    weight_decay: float
    second_turns: float  # share of questions with another one behind them
    seed: int

    def rate(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, constant, linear decay."""
        left = (self.steps - step) / max(1.0, self.decay * self.steps)
        return self.learning_rate * min(1.0, (step + 1) / self.warmup, max(left, 0.0))


@dataclass(frozen=True)
class ScenesStage(Stage):
    """Everything from random weights, on questions about scenes. A second loss teaches the tower what each
    patch shows; its heads are thrown away."""

    steps: int = 2800
    batch: int = 32
    length: int = 352
    scenes: int = 60_000
    learning_rate: float = 1.5e-3
    warmup: int = 200
    decay: float = 0.35
    weight_decay: float = 0.05
    second_turns: float = 0.15
    seed: int = 1
    patch_loss: float = 1.0
    clutter: float = 0.05  # share of pictures that are no scene


@dataclass(frozen=True)
class HonestStage(Stage):
    """Projector and language model, on what the model must not pretend to know, on two pictures and on
    conversations; the tower is frozen. The questions about scenes go on, so that nothing is forgotten."""

    steps: int = 2900
    batch: int = 18
    length: int = 352
    scenes: int = 6000
    learning_rate: float = 1e-3
    warmup: int = 40
    decay: float = 0.6
    weight_decay: float = 0.05
    second_turns: float = 0.1
    seed: int = 2
    pairs: int = 6000
    foreign_pictures: int = 1000
    pair_rows: float = 0.42  # share of rows about two pictures
    foreign_rows: float = 0.1  # share of rows about a picture that is no scene
    foreign_questions: float = 0.25  # share of the questions about a scene
    choice_questions: float = 0.2  # share of the questions about a scene: one choice of a list
    follow_ups: float = 0.15  # share of the conversations about a scene that go on about one thing
    even_loss: float = 0.3  # weight: where nothing is known, no choice is likelier than another


@dataclass(frozen=True)
class Recipe:
    """The stages in their order. Kept with the checkpoint."""

    scenes: ScenesStage = ScenesStage()
    honest: HonestStage = HonestStage()
    lists: HonestStage = HonestStage(
        steps=500, learning_rate=5e-4, warmup=20, decay=0.9, seed=3, pair_rows=0.25, choice_questions=0.6
    )
    """The same lessons with more lists of choices, which came out too careful: red things were left out."""


STAGES = ("scenes", "honest", "lists")


def nano_config(vocab_size: int) -> MobileVLMConfig:
    """The official architecture at a size that a laptop's CPU trains in hours."""
    return MobileVLMConfig(
        vision=VisionConfig(
            image_size=144,
            patch_size=12,
            hidden_size=192,
            intermediate_size=768,
            num_hidden_layers=5,
            num_attention_heads=6,
        ),
        language=LanguageConfig(
            vocab_size=vocab_size,
            hidden_size=160,
            intermediate_size=448,
            num_hidden_layers=4,
            num_attention_heads=5,
            num_key_value_heads=5,
        ),
        projector_type="ldpnet",
    )
