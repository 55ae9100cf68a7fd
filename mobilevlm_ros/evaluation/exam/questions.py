# SPDX-License-Identifier: Apache-2.0
"""Reads an exam: JSON or CSV, one entry a question; what is wrong is named with its row."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilevlm_ros.errors import EvaluationError
from mobilevlm_ros.files.kinds import LIST, NUMBER, OBJECT, TEXT
from mobilevlm_ros.files.small_file import regular

_LARGEST = 256 << 20  # bytes of the file

FIELDS = "image (or several), question, and answer, answers or choices with answer; id and tags as you like"


@dataclass(frozen=True)
class ExamQuestion:
    """One question.

    Attributes:
        row: of the file, from 1 (without the header of a CSV file).
        id: the file's own, or the row.
        images: the files of the pictures that it is about, oldest first; most questions have one.
        question: as asked.
        answers: accepted ones; of several people, one each. With choices: the right choice.
        choices: to choose from; empty for a free answer.
        tags: for the breakdown.
    """

    row: int
    id: str
    images: tuple[Path, ...]
    question: str
    answers: tuple[str, ...]
    choices: tuple[str, ...]
    tags: tuple[str, ...]


def read_exam(path: Path, images: Path | None = None) -> list[ExamQuestion]:
    """The questions of a .json (a list, or an object with the list `questions`), .jsonl or .csv file.

    Pictures are relative to `images`, or to the file. In CSV the parts of image, answers, choices and
    tags are separated by '|'. Raises EvaluationError that names every row's first fault (up to five rows).
    """
    rows = _rows(path)
    folder = images if images is not None else path.parent
    if images is not None and not images.is_dir():
        raise EvaluationError(f"{images} is no directory: name the folder of the exam's pictures")
    questions: list[ExamQuestion] = []
    faults: list[str] = []
    ids: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        try:
            question = _question(row, number, folder)
        except EvaluationError as error:
            faults.append(f"row {number}: {error}")
            continue
        if question.id in ids:
            faults.append(f"row {number}: the id {question.id!r} is also that of row {ids[question.id]}")
        ids.setdefault(question.id, number)
        questions.append(question)
    if faults:
        more = f"; and {len(faults) - 5} more rows" if len(faults) > 5 else ""
        raise EvaluationError(f"{path}: {'; '.join(faults[:5])}{more}: correct them (fields: {FIELDS})")
    if not questions:
        raise EvaluationError(f"{path} holds no question (fields: {FIELDS})")
    return questions


def _rows(path: Path) -> Sequence[Any]:
    try:
        text = regular(path, _LARGEST).read_text(encoding="utf-8-sig")  # spreadsheets put a mark in front
        if path.suffix.lower() == ".csv":
            return list(csv.DictReader(text.splitlines(keepends=True)))
        if path.suffix.lower() == ".jsonl":
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        loaded = json.loads(text)
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError, csv.Error) as error:
        raise EvaluationError(f"{path} is no JSON, JSON Lines or CSV file ({error}): correct it") from error
    rows = loaded.get("questions") if OBJECT.fits(loaded) else loaded
    if not LIST.fits(rows):
        raise EvaluationError(f"{path} holds no list of questions: write [{{...}}, ...] (fields: {FIELDS})")
    return rows


def _question(row: Any, number: int, folder: Path) -> ExamQuestion:
    if not OBJECT.fits(row) or None in row:
        raise EvaluationError("it is no object with a field for each value")
    question = _text(row, "question")
    several = isinstance(row.get("image"), list) and row["image"]
    names = _parts(row, "image") if several else tuple(_text(row, "image").split("|"))
    pictures = tuple(folder / name.strip() for name in names)
    choices = _parts(row, "choices")
    answers = _parts(row, "answers") or _parts(row, "answer")
    if not answers:
        raise EvaluationError("it has no answer")
    if choices and (len(answers) != 1 or answers[0] not in choices):
        raise EvaluationError(f"the answer {' | '.join(answers)!r} is not one of the choices {choices}")
    if choices and len(choices) < 2:
        raise EvaluationError("it has one choice only: give two or more, or none")
    for path in pictures:
        if not path.is_file():
            raise EvaluationError(f"the picture {path} is missing")
    name = row.get("id")
    return ExamQuestion(
        number, str(name) if name not in (None, "") else str(number), pictures, question, answers, choices,
        _parts(row, "tags"),
    )  # fmt: skip


def _text(row: Mapping[str, Any], name: str) -> str:
    value: Any = row.get(name)
    if not TEXT.fits(value) or not value.strip():
        raise EvaluationError(f"{name!r} is {value!r}, expected text")
    return value.strip()


def _parts(row: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = row.get(name)
    if value is None:
        return ()
    values = value.split("|") if TEXT.fits(value) else [value] if NUMBER.fits(value) else value
    if not LIST.fits(values) or not all(TEXT.fits(v) or NUMBER.fits(v) for v in values):
        raise EvaluationError(f"{name!r} is {value!r}, expected text or a list of texts")
    return tuple(text for v in values if (text := str(v).strip()))
