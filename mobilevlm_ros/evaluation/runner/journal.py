# SPDX-License-Identifier: Apache-2.0
"""Answers on disk, one line each as they come: a run that was killed goes on where it was."""

from __future__ import annotations

import fcntl
import hashlib
import json
import tempfile
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from mobilevlm_ros.errors import EvaluationError
from mobilevlm_ros.evaluation.benchmarks.scoring.answers import read_answers
from mobilevlm_ros.evaluation.benchmarks.types import AnswerRow, Benchmark, Dataset, Question
from mobilevlm_ros.files.atomic import make_directory, write_file
from mobilevlm_ros.files.json_fields import read_json

IDENTITY = "run.json"


def answer_line(question: Question, text: str, model_id: str) -> str:
    """The line of the official answers file; its answer_id, random there, is a digest here."""
    digest = hashlib.sha256(f"{model_id}\n{question.key!r}".encode()).hexdigest()[:22]
    line = {
        "question_id": question.question_id,
        **({"round_id": question.extra["round_id"]} if "round_id" in question.extra else {}),
        "prompt": question.saved_prompt,
        "text": text,
        **{key: value for key, value in question.extra.items() if key != "round_id"},
        "answer_id": digest,
        "model_id": model_id,
        "metadata": {},
    }
    return json.dumps(line) + "\n"


class Journal:
    """The answers of one run (or of one shard of it), appended and never rewritten.

    Args:
        folder: of the run; made where it is missing.
        identity: what the answers depend on. A folder of another run is refused.
        shard: part of the file's name; '' for a run in one piece.

    Use as a context manager: it holds the file's lock. Raises EvaluationError when the folder is another
    run's, or another process writes; OutputError when it cannot be made.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], shard: str = "") -> None:
        self.folder = folder
        self.path = folder / f"journal{f'-{shard}' if shard else ''}.jsonl"
        make_directory(folder)
        known = folder / IDENTITY
        if known.is_file():
            _check_identity(known, identity)
        elif self.path.exists():
            raise EvaluationError(
                f"{self.path} is there without {IDENTITY}; whose answers it holds is not known: use another "
                "--out, or delete that folder"
            )
        else:
            write_whole(known, json.dumps(identity, indent=1) + "\n")
        self._stream = self.path.open("ab")

    def __enter__(self) -> Journal:
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._stream.close()
            raise EvaluationError(
                f"another process writes {self.path}: wait for it, or use another --out"
            ) from None
        self._cut_off_half_a_line()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def add(self, lines: Iterable[str]) -> None:
        """Appends lines in one write; after it returns, a killed process has lost none of them."""
        self._stream.write("".join(lines).encode())
        self._stream.flush()

    def _cut_off_half_a_line(self) -> None:
        """A process killed while it wrote leaves a line without an end; its question is asked again."""
        size = self._stream.tell()
        with self.path.open("rb") as stream:
            data = stream.read()
        whole = data.rfind(b"\n") + 1
        if whole < size:
            self._stream.truncate(whole)


def answered(folder: Path, benchmark: Benchmark, dataset: Dataset) -> dict[Hashable, AnswerRow]:
    """Every answer in the folder's journals, of all shards, by question. Raises EvaluationError."""
    keys = {question.key for question in dataset.questions}
    found: dict[Hashable, AnswerRow] = {}
    for path in sorted(folder.glob("journal*.jsonl")):
        for row in _rows(path):
            key = benchmark.answer_key(row)
            if key in keys:
                found.setdefault(key, row)
    return found


def _rows(path: Path) -> list[AnswerRow]:
    """The whole lines of a journal; another shard's may just be written."""
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) == len(data):
        return read_answers([path])
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as copy:
        copy.write(whole)
        copy.flush()
        return read_answers([Path(copy.name)])


def write_answers(path: Path, questions: Sequence[Question], texts: Sequence[str], model_id: str) -> None:
    """The official answers file, in the question file's order: it appears whole or not at all."""
    write_whole(
        path, "".join(answer_line(q, text, model_id) for q, text in zip(questions, texts, strict=True))
    )


def write_whole(path: Path, text: str) -> None:
    """Replaces a file of ours at once. Raises OutputError."""
    write_file(path, text.encode(), overwrite=True)


def _check_identity(path: Path, identity: dict[str, Any]) -> None:
    known = read_json(path, EvaluationError, "use another --out")
    for key, value in identity.items():
        if known.get(key) != value:
            raise EvaluationError(
                f"{path.parent} holds answers of another run: its {key} is {known.get(key)!r}, this run's is "
                f"{value!r}; use another --out, or delete that folder"
            )
