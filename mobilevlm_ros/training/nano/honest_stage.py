# SPDX-License-Identifier: Apache-2.0
"""The later stages: not to pretend, two pictures, conversations, lists. The tower is frozen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobilevlm_ros.model.mobilevlm import MobileVLM
from mobilevlm_ros.processing.tokenizer import Tokenizer
from mobilevlm_ros.simulation import phrases
from mobilevlm_ros.simulation.follow_ups import checked, follow_up
from mobilevlm_ros.simulation.pair_questions import PAIR_FAMILIES, ask_pair
from mobilevlm_ros.simulation.questions import FAMILIES, PLACES, ask
from mobilevlm_ros.simulation.render import Observation
from mobilevlm_ros.simulation.scene import PAINTS
from mobilevlm_ros.simulation.scene_change import PicturePair
from mobilevlm_ros.training.nano.choice_questions import choice_turn
from mobilevlm_ros.training.nano.features import encode_pictures
from mobilevlm_ros.training.nano.foreign_questions import (
    NOT_KNOWING,
    casually,
    foreign_turn,
    not_knowing,
)
from mobilevlm_ros.training.nano.packing import IGNORE, Batch, Packer, Turn, splice
from mobilevlm_ros.training.nano.recipe import HonestStage

CHOICE_SETS: tuple[tuple[str, ...], ...] = (
    ("yes", "no"),
    ("yes", "no"),  # counts twice: most choices are these
    tuple(PLACES),
    ("near", "far"),
    ("day", "dusk"),
    (*PAINTS, "orange", "none"),
    ("yes", "no", "none", "nothing", "near", "far", "day", "dusk", *PLACES, *PAINTS),
)
"""Answers that a question may offer as choices; what is unknown must not favour one of them."""

_OF_ONE = {"newest": 0.2, "first": 0.2, "second": 0.08}
"""How often a question about one picture stands between two about what changed."""

_WORDS = {f: (*phrases.QUESTIONS[f], *phrases.MORE_QUESTIONS[f]) for f in FAMILIES}


@dataclass(frozen=True)
class Rows:
    """What a step learns from: `features` f32 [images of all rows, P, D], row by row."""

    features: Tensor
    batch: Batch


class HonestLessons:
    """Draws the batch of any step from (seed, step) alone, and says how wrong the model is about it."""

    def __init__(
        self, stage: HonestStage, model: MobileVLM, tokenizer: Tokenizer, work: Path, workers: int
    ) -> None:
        self.stage = stage
        self.model = model
        counts = {"scene": stage.scenes, "pair": stage.pairs, "foreign": stage.foreign_pictures}
        self.pictures = {
            kind: encode_pictures(model.eval(), work, kind, count, workers=workers)
            for kind, count in counts.items()
        }
        answers = frozenset(answer for answer, _ in NOT_KNOWING)
        self.packer = Packer(tokenizer, model.config.num_image_tokens, answers)
        self.choice_sets = [_first_tokens(choices, tokenizer) for choices in CHOICE_SETS]
        self.heads = nn.Module()  # nothing beside the model learns

    def trained(self) -> list[nn.Parameter]:
        """Projector and language model; the tower is not touched."""
        for parameter in self.model.vision.parameters():
            parameter.requires_grad_(False)
        return [p for p in self.model.parameters() if p.requires_grad]

    def compile(self) -> None:
        """Nothing: without the tower it gains nothing (2.4 against 2.5 s of a step on one Zen 3 core)."""

    def draw(self, step: int) -> Rows:
        """The rows of a step."""
        stage = self.stage
        rng = np.random.default_rng([stage.seed, step])
        pairs, foreign = (round(share * stage.batch) for share in (stage.pair_rows, stage.foreign_rows))
        features, samples = [], []
        for row in range(stage.batch):
            kind = "pair" if row < pairs else "foreign" if row < pairs + foreign else "scene"
            shown = self.pictures[kind]
            index = int(rng.integers(len(shown)))
            features.append(shown.features[index])
            truth = shown.truths[index]
            if kind == "pair":
                samples.append(_typed(self._about_pair(truth, rng), rng))
            elif kind == "scene":
                samples.append(_typed(self._about_scene(truth, rng), rng))
            else:
                scenes = self.pictures["scene"].truths
                about = self._about_nothing(scenes[int(rng.integers(len(scenes)))], rng)
                samples.append(_typed(about, rng))
        batch = self.packer.pack(samples, stage.length, [len(shown) for shown in features])
        return Rows(torch.from_numpy(np.concatenate(features).astype(np.float32)), batch)

    def _about_scene(self, observation: Observation, rng: np.random.Generator) -> Iterator[list[Turn]]:
        """Conversations without end: every family in turn, and between them what is new in this stage."""
        stage = self.stage
        while True:
            for family in rng.permutation(FAMILIES):
                while rng.random() < stage.foreign_questions:
                    yield [foreign_turn(rng)]
                if rng.random() < stage.choice_questions:
                    yield [choice_turn(observation, rng)]
                if rng.random() < stage.follow_ups:
                    turns = follow_up(observation, rng) if rng.random() < 0.7 else None
                    turn = checked(observation, rng)
                    if turns or turn:
                        yield turns or [turn]  # type: ignore[list-item]
                exchange = ask(observation, str(family), rng, phrasings=_WORDS[str(family)])
                if exchange is None:
                    continue
                turns = [(exchange.question, exchange.answer)]
                if rng.random() < stage.second_turns:
                    other = ask(observation, str(rng.choice(FAMILIES)), rng)
                    turns.append((other.question, other.answer) if other else foreign_turn(rng))
                yield turns

    def _about_pair(self, pair: PicturePair, rng: np.random.Generator) -> Iterator[list[Turn]]:
        """What changed, and what each shows; questions that name no picture are about the newest."""
        while True:
            for family in rng.permutation(PAIR_FAMILIES):
                exchange = ask_pair(pair, str(family), rng)
                if exchange is not None:
                    yield [(exchange.question, exchange.answer)]
                for which in ("newest", "first", "second"):  # who compares two must read each
                    if rng.random() < _OF_ONE[which]:
                        yield from _about_one(pair, which, rng)
            if rng.random() < 0.6:
                yield [foreign_turn(rng)]

    def _about_nothing(self, other: Observation, rng: np.random.Generator) -> Iterator[list[Turn]]:
        """Known questions, to which a picture that is no scene gives no answer."""
        while True:
            for family in rng.permutation(FAMILIES):
                exchange = ask(other, str(family), rng, phrasings=_WORDS[str(family)])
                if exchange is not None:
                    yield [(exchange.question, not_knowing(rng))]
            yield [foreign_turn(rng)]

    def loss(self, rows: Rows) -> dict[str, Tensor]:
        """'loss' to minimise, and what it is made of: answers, choices that should be even, and accuracy."""
        batch, model = rows.batch, self.model
        labels = torch.from_numpy(batch.labels)
        hidden = model.hidden_states(
            splice(model, batch, model.project(rows.features)),
            positions=torch.from_numpy(batch.positions),
            mask=torch.from_numpy(batch.mask()),
        )
        taught = labels != IGNORE
        logits, target = model.lm_head(hidden[taught]).float(), labels[taught]
        answers = F.cross_entropy(logits, target)
        uneven = self._unevenness(logits[torch.from_numpy(batch.unsure)[taught]])
        accuracy = (logits.argmax(-1) == target).float().mean()
        total = answers + self.stage.even_loss * uneven
        return {"loss": total, "answers": answers, "uneven": uneven, "accuracy": accuracy}

    def _unevenness(self, logits: Tensor) -> Tensor:
        """How far the choices are from equally likely, logits [M, V]: the mean KL in nats."""
        total = logits.new_zeros(())
        if not len(logits):
            return total
        for tokens in self.choice_sets:
            scores = torch.stack([logits[:, choice].logsumexp(-1) for choice in tokens], -1)
            total = total - (F.log_softmax(scores, -1) + np.log(len(tokens))).mean()
        return total / len(self.choice_sets)


def _about_one(pair: PicturePair, which: str, rng: np.random.Generator) -> Iterator[list[Turn]]:
    """A known question about one picture of two: that which it names, or else the newest."""
    family = str(rng.choice(FAMILIES))
    shown = pair.first if which == "first" else pair.second
    exchange = ask(shown, family, rng, phrasings=_WORDS[family])
    if exchange is None:
        return
    question = exchange.question
    if which != "newest":
        question = f"In the {which} image: {question[0].lower()}{question[1:]}"
    yield [(question, exchange.answer)]


def _typed(conversations: Iterator[list[Turn]], rng: np.random.Generator) -> Iterator[list[Turn]]:
    """Every question as someone might type it: what is foreign must not be known by its spelling."""
    for turns in conversations:
        yield [(casually(question, rng), answer) for question, answer in turns]


def _first_tokens(choices: Sequence[str], tokenizer: Tokenizer) -> list[list[int]]:
    """For each choice the first token of each way to write it (`inference.choices` counts both, too)."""
    ways = [(choice, choice.capitalize()) for choice in choices]
    return [sorted({tokenizer.encode(text, bos=False)[0] for text in way}) for way in ways]
