# SPDX-License-Identifier: Apache-2.0
"""MMBench-dev with circular evaluation: asked as model_vqa_mmbench.py does, scored by exact matching as
VLMEvalKit's mcq_circular_eval(model=None) does (e8e78f05): what no rule can read is wrong, nobody guesses.
"""

from __future__ import annotations

import csv
import re
import string
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilevlm_ros.errors import EvaluationError
from mobilevlm_ros.evaluation.benchmarks.files import find, only_once
from mobilevlm_ros.evaluation.benchmarks.types import (
    LETTER,
    AnswerRow,
    Benchmark,
    Dataset,
    Judged,
    OfficialScore,
    Picture,
    Question,
    Score,
    mean_metric,
)
from mobilevlm_ros.files.small_file import regular

FILES = ("mmbench_dev_en_20231003.tsv", "mmbench_dev_20230712.tsv")
ROTATION = 1_000_000
"""The r-th circular copy of question i has index i + r * ROTATION."""
_COLUMNS = ("index", "question", "hint", "A", "B", "answer", "category", "image")
_MISSING = frozenset(
    ("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A")
) | {"NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
"""Cells that pandas reads as missing; the official loop takes them so, whatever they were meant to say."""
_SAYS = re.compile(r"(?i)(?:correct\s+)?answer\s+is\s+\**([ABCD])\**")
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)


@dataclass(frozen=True)
class Truth:
    """The right letter; options by letter; the question the row is a rotation of; its categories."""

    answer: str
    options: Mapping[str, str]
    group: int
    category: str
    l2_category: str


def load(folder: Path) -> Dataset:
    """Every row: each question with all its rotations."""
    path = find(folder, *FILES)
    questions: list[Question] = []
    rows: dict[Any, int] = {}
    images: dict[str, str] = {}
    groups: dict[int, list[Question]] = {}
    for number, row in _table(path):
        where = f"{path}, row {number}"
        if not row["index"].strip().isdigit():
            raise EvaluationError(f"{where}: index {row['index']!r} is not a number")
        index = int(row["index"])
        only_once(rows, index, number, path)
        rows[index] = number
        image = row["image"]
        image = images.setdefault(
            str(index), images.get(image, image)
        )  # a cell may name another row's picture
        question = _question(number, index, row, image, where)
        questions.append(question)
        groups.setdefault(question.truth.group, []).append(question)
    for group, copies in groups.items():
        options = len(copies[0].truth.options)
        if len(copies) != options:
            raise EvaluationError(
                f"{path}: question {group} (row {copies[0].row}) has {len(copies)} rows for its {options} "
                f"options; circular evaluation needs one each: use {FILES[0]}, or download it again"
            )
    return Dataset(folder, questions)


def _table(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    csv.field_size_limit(sys.maxsize)
    try:
        with regular(path).open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, delimiter="\t")
            lacking = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if lacking:
                raise EvaluationError(
                    f"{path} has no column {', '.join(lacking)}: the test split has no answers, and newer "
                    f"variants other columns; use {FILES[0]}"
                )
            for number, row in enumerate(reader, 1):
                if None in row or None in row.values():
                    raise EvaluationError(f"{path}, row {number} has another number of cells than the header")
                yield number, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EvaluationError(f"{path} cannot be read: {error}") from error


def _none(cell: str) -> bool:
    return cell in _MISSING or cell.lower() in ("nan", "none")


def _question(number: int, index: int, row: dict[str, str], image: str, where: str) -> Question:
    options: dict[str, str] = {}
    for letter in "ABCD":
        if _none(row.get(letter, "")):
            break
        options[letter] = row[letter]
    if row["answer"] not in options:
        raise EvaluationError(
            f"{where}: answer {row['answer']!r} is none of the options {', '.join(options)}"
        )
    if not image:
        raise EvaluationError(f"{where} has no picture")
    saved = "\n".join([row["question"], *(f"{letter}. {text}" for letter, text in options.items())])
    if not _none(row["hint"]):
        saved = f"{row['hint']}\n{saved}"
    truth = Truth(
        row["answer"],
        # The scorer takes every letter's cell, those behind a gap too.
        {k: row[k] for k in string.ascii_uppercase if k in row and row[k] not in _MISSING},
        index % ROTATION,
        row["category"],
        row.get("l2-category", ""),
    )
    extra = {"round_id": 0, "options": list(options.values()), "option_char": list(options)}
    picture = Picture(base64=image)
    return Question(number, index, index, picture, saved + LETTER, saved, 1024, truth, extra)


def parse(text: str, options: Mapping[str, str]) -> str:
    """The option that an answer means: its letter, 'Z' for a refusal, '' where no rule can tell.

    In order: the one letter among the words, if it is one of the last four; 'answer is X'; the one option
    whose text the answer holds, if the answer is at most twice as long as all options.
    """
    if any(refusal in text for refusal in _REFUSALS):
        return "Z"
    if "Failed to obtain answer via API" not in text:
        words = text.translate({ord(char): " " for char in ".()[],:;!*#{}"}).split()
        present = [letter for letter in options if letter in words]
        if len(present) == 1 and words.index(present[0]) > len(words) - 5:
            return present[0]
        if not present and "Z" in words:
            return "Z"
        said = _SAYS.search(text)
        if said and said.group(1).upper() in options:
            return said.group(1).upper()
    lower = text.lower()
    if len(lower) > 2 * sum(len(option) for option in options.values()):
        return ""
    held = [letter for letter, option in options.items() if option.lower() in lower]
    return held[0] if len(held) == 1 else ""


def score(pairs: Sequence[tuple[Question, str | None]]) -> Score:
    """`accuracy` in percent of questions whose rotations are all right; a missing answer is wrong."""
    groups: dict[int, list[tuple[Question, str | None]]] = {}
    for question, text in pairs:
        groups.setdefault(question.truth.group, []).append((question, text))
    judged = []
    for copies in groups.values():
        first = copies[0][0]
        parsed = {q.question_id: "" if t is None else parse(t, q.truth.options) for q, t in copies}
        hit = all(parsed[q.question_id] == q.truth.answer for q, _ in copies)
        texts = " | ".join("(missing)" if text is None else text for _, text in copies)
        read = " ".join(letter or "?" for letter in parsed.values())
        judged.append(Judged(first, texts, read, float(hit), first.truth.category))
    values = {"accuracy": sum(j.credit for j in judged) / len(judged) * 100 if judged else None}
    details = {
        "questions": len(judged),
        "category": _by(judged, "category"),
        "l2_category": _by(judged, "l2_category"),
        "not_understood": sum(
            text is not None and not parse(text, question.truth.options) for question, text in pairs
        ),
    }
    metric = mean_metric(judged, lambda j: j.question.truth.group)
    return Score(values, details, judged, metric, sum(text is not None for _, text in pairs))


def _by(judged: Sequence[Judged], name: str) -> dict[str, float]:
    parts: dict[str, list[float]] = {}
    for j in judged:
        parts.setdefault(getattr(j.question.truth, name), []).append(j.credit)
    return {kind: sum(credits) / len(credits) for kind, credits in sorted(parts.items())}


def official(dataset: Dataset, rows: Sequence[AnswerRow]) -> OfficialScore:
    """Missing rows of the sheet hold no answer, which is read as the text 'nan'."""
    last = {str(row.question_id): row.text for row in rows}
    known = {str(question.key) for question in dataset.questions}
    hides = ["undecidable answers are wrong here; the leaderboard asks ChatGPT about them"]
    if missing := len(known - set(last)):
        hides.append(f"{missing} missing answers are taken as the text 'nan'")
    if foreign := sum(str(row.question_id) not in known for row in rows):
        hides.append(f"{foreign} answers to unknown questions are ignored")
    if len(last) < len(rows):
        hides.append(f"{len(rows) - len(last)} answers are overwritten by a later one to the same question")
    return OfficialScore(
        score([(q, last.get(str(q.key), "nan")) for q in dataset.questions]).values, "", hides
    )


def _key(row: AnswerRow) -> int | None:
    text = str(row.question_id).strip()
    return int(text) if text.isdigit() else None


MMBENCH = Benchmark(
    name="mmbench",
    title="MMBench-dev",
    headline="accuracy",
    values=("accuracy",),
    files=(FILES,),
    images=(),
    load=load,
    answer_key=_key,
    score=score,
    official=official,
    missing="wrong",
    protocol="dev split, circular, options inferred by exact matching (no ChatGPT)",
)
