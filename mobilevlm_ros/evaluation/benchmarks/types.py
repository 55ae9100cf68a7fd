# SPDX-License-Identifier: Apache-2.0
"""What a benchmark is: questions to ask, answers to read, a score with what it was computed from."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.evaluation.statistics import Metric

SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
"""The suffix that GQA, TextVQA, POPE and MME questions carry in their files (LLaVA-1.5, section A)."""
LETTER = "\nAnswer with the option's letter from the given choices directly."
"""The suffix that model_vqa_science.py and model_vqa_mmbench.py append."""


@dataclass(frozen=True)
class Picture:
    """Where a question's picture comes from; equal pictures are encoded once.

    Attributes:
        path: a file; None where the picture is inside the question file.
        base64: its bytes as text, when it is inside.
        crop: shortest edge and centre crop whatever the model's own way is (ScienceQA's official loop).
        draw: draws it, u8 [H, W, 3] RGB, where it is in no file; equal ones draw equal pictures.
    """

    path: Path | None = None
    base64: str = ""
    crop: bool = False
    draw: Callable[[], NDArray[np.uint8]] | None = None


@dataclass(frozen=True)
class Question:
    """One question as the official loop asks it.

    Attributes:
        row: of the question file, from 1.
        key: what an answer is found by.
        question_id: as the question file has it, and as the answer line repeats it.
        picture: None for a text-only question.
        prompt: what follows the picture's placeholder and newline, or the whole message without a picture.
        saved_prompt: what the official loop writes into the answer line.
        max_tokens: 128 or 1024, greedy.
        truth: what the scorer needs; each benchmark has a type of its own.
        extra: further fields of the answer line, between `text` and `answer_id`.
        earlier: pictures that stand before `picture`, in order; none in the official benchmarks.
    """

    row: int
    key: Hashable
    question_id: str | int
    picture: Picture | None
    prompt: str
    saved_prompt: str
    max_tokens: int
    truth: Any
    extra: Mapping[str, Any] = field(default_factory=dict)
    earlier: tuple[Picture, ...] = ()

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All of its pictures, in order; empty for a text-only question."""
        return () if self.picture is None else (*self.earlier, self.picture)


@dataclass(frozen=True)
class AnswerRow:
    """A line of an answers file: its number from 1, and what the line holds."""

    line: int
    question_id: str | int
    prompt: str
    text: str
    model_id: str = ""


@dataclass(frozen=True)
class Dataset:
    """A loaded benchmark.

    Attributes:
        folder: it came from.
        questions: in the question file's order.
        ignored: keys of answers that are the benchmark's but do not count (GQA's unbalanced questions).
    """

    folder: Path
    questions: Sequence[Question]
    ignored: frozenset[Hashable] = frozenset()


@dataclass(frozen=True)
class Judged:
    """One question's outcome: how its answer was read, and what it is worth (0 to 1)."""

    question: Question
    text: str
    parsed: str
    credit: float
    group: str = ""


@dataclass(frozen=True)
class Score:
    """Figures under the names of the official scorers, not rounded.

    Attributes:
        values: the published figures; None where nothing was there to compute one from.
        details: finer tables.
        judged: every scored question (MMBench: every group of rotations).
        metric: the headline figure, for intervals and comparisons.
        rows: how many answers the values are computed from.
    """

    values: Mapping[str, float | None]
    details: Mapping[str, Any]
    judged: Sequence[Judged]
    metric: Metric
    rows: int


@dataclass(frozen=True)
class OfficialScore:
    """What the official scorer prints for the same file.

    Attributes:
        values: as in Score; None where it prints nothing.
        error: why it stops; empty when it does not.
        hides: what its figure does not tell, a sentence each.
    """

    values: Mapping[str, float | None]
    error: str = ""
    hides: Sequence[str] = ()


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name: on the command line.
        title: in tables.
        headline: the value that the papers print.
        values: every figure of the score.
        files: names that its folder holds (alternatives in one tuple).
        images: folder of the pictures, below `folder`; empty where they are inside the question file.
        load: reads a folder; EvaluationError names the file and row that cannot be used.
        answer_key: what an answer row is found by; None for one that belongs to no question of any kind.
        score: of questions with the text that answers each; a text that is None is missing.
        official: what the official scorer makes of the rows as they are.
        missing: whether the benchmark's own rule takes a missing answer as a wrong one.
        protocol: one sentence for reports: which variant of the benchmark this is.
        size: questions of the official set; 0 where it has several editions. Scores over other numbers of
            questions are not comparable with the published ones, and reports mark them.
    """

    name: str
    title: str
    headline: str
    values: tuple[str, ...]
    files: Sequence[tuple[str, ...]]
    images: tuple[str, ...]
    load: Callable[[Path], Dataset]
    answer_key: Callable[[AnswerRow], Hashable | None]
    score: Callable[[Sequence[tuple[Question, str | None]]], Score]
    official: Callable[[Dataset, Sequence[AnswerRow]], OfficialScore]
    missing: Literal["refused", "wrong"] = "refused"
    protocol: str = ""
    size: int = 0


def mean_metric(judged: Sequence[Judged], unit: Callable[[Judged], Hashable], scale: float = 100.0) -> Metric:
    """The mean credit times `scale`, resampled by unit."""
    return summed_metric(
        [(unit(j), (j.credit, 1.0)) for j in judged],
        lambda s: scale * s[..., 0] / np.maximum(s[..., 1], 1),
    )


def summed_metric(
    rows: Sequence[tuple[Hashable, Sequence[float]]],
    combine: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> Metric:
    """A metric from (unit, what the row adds) pairs."""
    width = len(rows[0][1]) if rows else 1
    totals: dict[Hashable, NDArray[np.float64]] = {}
    for unit, values in rows:
        totals[unit] = totals.get(unit, 0) + np.asarray(values, np.float64)
    sums = np.stack(list(totals.values())) if totals else np.zeros((0, width))
    return Metric(sums, combine, tuple(totals))


def picture_unit(judged: Judged) -> Hashable:
    """The picture of a question; the question itself where it has none."""
    picture = judged.question.picture
    return judged.question.key if picture is None else picture
