# SPDX-License-Identifier: Apache-2.0
"""The plain file in which a person corrects answers: a table in CSV, one row for each question."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mobilevlm_ros.errors import DataError

COLUMNS = ("id", "image", "question", "answer", "choices", "confidence", "keep")
SEPARATOR = "|"
_NO = ("no", "n", "0", "false", "")
_YES = ("yes", "y", "1", "true")


@dataclass(frozen=True)
class Example:
    """A question about a picture, and its answer.

    Attributes:
        id: of the example; names its picture, too.
        image: path of the picture within the data set.
        choices: that were given; empty for free text.
        confidence: of the model in its answer, 0 to 1.
    """

    id: str
    image: str
    question: str
    answer: str
    choices: tuple[str, ...] = ()
    confidence: float = 0.0


def to_csv(examples: Iterable[Example]) -> str:
    """The table: correct `answer`; write no into `keep`, or delete the row, to leave one out."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for e in examples:
        choices = SEPARATOR.join(e.choices)
        writer.writerow((e.id, e.image, e.question, e.answer, choices, f"{e.confidence:.3f}", "yes"))
    return text.getvalue()


def reviewed(path: Path, examples: Sequence[Example]) -> list[Example]:
    """The examples that a person kept, with the answers as they stand in the table.

    Raises:
        DataError: the table cannot be read, a row belongs to no example, has no answer, or one that is not
            among its choices; with the row.
    """
    known = {example.id: example for example in examples}
    kept: dict[str, Example] = {}
    for number, row in enumerate(_rows(path), 2):
        where = f"{path}, row {number}"
        name = (row.get("id") or "").strip()
        example = known.get(name)
        if example is None:
            raise DataError(f"{where}: there is no example {name!r}; is it the table of another data set?")
        if name in kept:
            raise DataError(f"{where}: the example {name!r} is there twice: delete one row")
        keep = (row.get("keep") or "").strip().lower()
        if keep not in _NO + _YES:
            raise DataError(f"{where}: keep is {row.get('keep')!r}: write yes or no")
        if keep in _NO:
            continue
        answer = (row.get("answer") or "").strip()
        if not answer:
            raise DataError(f"{where}: the answer is empty: write one, or no into keep")
        if example.choices and answer not in example.choices:
            raise DataError(
                f"{where}: the answer {answer!r} is not one of the choices {', '.join(example.choices)}"
            )
        question = (row.get("question") or "").strip() or example.question
        kept[name] = Example(name, example.image, question, answer, example.choices, example.confidence)
    if not kept:
        raise DataError(f"{path} keeps no example: write yes into keep where the answer is right")
    return [kept[example.id] for example in examples if example.id in kept]


def _rows(path: Path) -> list[dict[str, str | None]]:
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets put a mark in front
        reader = csv.DictReader(io.StringIO(text), delimiter=_delimiter(text))
        rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error
    missing = [name for name in ("id", "answer", "keep") if name not in (reader.fieldnames or ())]
    if missing:
        raise DataError(f"{path} has no column {missing[0]!r}: keep the columns {', '.join(COLUMNS)}")
    return rows


def _delimiter(text: str) -> str:
    """Spreadsheets of some countries save with semicolons."""
    first = text.partition("\n")[0]
    return ";" if first.count(";") > first.count(",") else ","
