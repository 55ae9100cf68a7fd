# SPDX-License-Identifier: Apache-2.0
"""Runs a benchmark on a model: by picture, onto disk, and again from where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from mobilevlm_ros.engine.runtime import Runtime
from mobilevlm_ros.errors import ContextOverflow, EvaluationError
from mobilevlm_ros.evaluation.benchmarks.scoring.result import Result, score_rows
from mobilevlm_ros.evaluation.benchmarks.types import AnswerRow, Benchmark, Dataset, Question
from mobilevlm_ros.evaluation.runner.identity import environment, model_identity
from mobilevlm_ros.evaluation.runner.journal import (
    Journal,
    answer_line,
    answered,
    write_answers,
    write_whole,
)
from mobilevlm_ros.evaluation.runner.model import ExaminedModel

GROUP = 24
"""Most questions about one picture that are asked at once. POPE asks 18 about each, MME 2, GQA about 30."""


@dataclass(frozen=True)
class Plan:
    """What to ask.

    Attributes:
        out: the folder of all runs; a run's own is out/MODEL/BENCHMARK.
        limit: the first so many questions of the file; 0 for all.
        shard: (i, n): the i-th of n parts, from 1.
        together: see ExaminedModel.
    """

    out: Path
    limit: int = 0
    shard: tuple[int, int] = (1, 1)
    together: bool = True

    @property
    def shard_name(self) -> str:
        """'' for a run in one piece."""
        return "" if self.shard[1] == 1 else f"{self.shard[0]}-of-{self.shard[1]}"


@dataclass
class Progress:
    """Where a run is, for its bar.

    Attributes:
        total: questions that this run (or shard) shall have answered.
        before: those answered by an earlier process.
        done: those answered now, too.
        texts: of every answer.
    """

    total: int
    before: int
    done: int
    texts: dict[Hashable, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        result: the score; None where questions are open, which a shard leaves to the others.
        folder: of the run.
        summary: as in the summary file.
        failures: questions that could not be asked, a sentence each.
        questions: the questions it was about, in the file's order.
        texts: their answers; None where there is none yet.
    """

    result: Result | None
    folder: Path
    summary: Mapping[str, Any]
    failures: Sequence[str]
    questions: Sequence[Question]
    texts: Sequence[str | None]


def run(
    benchmark: Benchmark,
    dataset: Dataset,
    runtime: Runtime,
    plan: Plan,
    on_progress: Callable[[Progress], object] = lambda progress: None,
) -> Outcome:
    """Asks what is not answered yet, scores when all is, and writes answers and summary.

    A picture or prompt that cannot be used costs its own questions only; there is no score then. Raises
    EvaluationError for a folder of another run, and what the engine raises.
    """
    identity = {
        "benchmark": benchmark.name,
        **model_identity(runtime),
        "questions_sha256": _digest(dataset.questions),
        "protocol": benchmark.protocol,
        "together": plan.together,
    }
    model_id = str(identity["model_id"])
    folder = plan.out / model_id / benchmark.name
    wanted = list(dataset.questions[: plan.limit] if plan.limit else dataset.questions)
    groups = _shard(_groups(wanted, dataset.questions), plan.shard)
    failures: list[str] = []
    with Journal(folder, identity, plan.shard_name) as journal:
        known = answered(folder, benchmark, dataset)
        mine = [question for group in groups for question in group]
        texts = {q.key: known[q.key].text for q in mine if q.key in known}
        progress = Progress(len(mine), len(texts), len(texts), texts)
        on_progress(progress)
        model, began = ExaminedModel(runtime, plan.together), perf_counter()
        for group in groups:
            open_ones = [question for question in group if question.key not in texts]
            if not open_ones:
                continue
            try:
                written = model.answer(open_ones)
            except (EvaluationError, ContextOverflow) as error:
                rows = ", ".join(str(question.row) for question in open_ones)
                failures.append(f"row {rows}: {error}")
                continue
            journal.add(answer_line(q, w.text, model_id) for q, w in zip(open_ones, written))
            texts.update((q.key, w.text) for q, w in zip(open_ones, written))
            progress.done = len(texts)
            on_progress(progress)
        seconds = perf_counter() - began
        known = answered(folder, benchmark, dataset)
    asked = progress.done - progress.before
    speed = {"asked_now": asked, "seconds": round(seconds, 3)}
    return _finish(benchmark, dataset, folder, wanted, known, failures, {**identity, **speed}, plan)


def _finish(
    benchmark: Benchmark,
    dataset: Dataset,
    folder: Path,
    wanted: Sequence[Question],
    known: Mapping[Hashable, AnswerRow],
    failures: Sequence[str],
    about: dict[str, Any],
    plan: Plan,
) -> Outcome:
    """Answers file, score and summary once every wanted question has its answer."""
    texts = [known[q.key].text if q.key in known else None for q in wanted]
    given = [text for text in texts if text is not None]
    suffix = f"-first-{plan.limit}" if plan.limit and plan.limit < len(dataset.questions) else ""
    if len(given) < len(wanted):
        summary = {**about, "questions": len(wanted), "answered": len(given), "failures": list(failures)}
        return Outcome(None, folder, summary, failures, wanted, texts)
    model_id = str(about["model_id"])
    write_answers(folder / f"answers{suffix}.jsonl", wanted, given, model_id)
    part = Dataset(dataset.folder, wanted)
    rows = [AnswerRow(i, q.question_id, q.saved_prompt, t) for i, (q, t) in enumerate(zip(wanted, given), 1)]
    # The first rows of a benchmark may hold half of a picture's pair; the score then says how many it covers.
    result = score_rows(benchmark, part, rows, model_id, partial=bool(suffix))
    told = {**about, **result.as_dict(), "of": len(dataset.questions), "environment": environment()}
    write_whole(folder / f"summary{suffix}.json", json.dumps(told, indent=1) + "\n")
    return Outcome(result, folder, told, failures, wanted, texts)


def _groups(wanted: Sequence[Question], everything: Sequence[Question]) -> list[list[Question]]:
    """Questions about one picture, GROUP at most, cut the same way however many are wanted.

    An answer's last bits can depend on what is asked beside it, so a resumed run asks the same groups.
    """
    chosen = {question.key for question in wanted}
    by_picture: dict[Hashable, list[Question]] = {}
    for question in everything:
        key: Hashable = question.pictures or question.key
        by_picture.setdefault(key, []).append(question)
    cut = (part for group in by_picture.values() for part in _chunks(group))
    return [kept for part in cut if (kept := [q for q in part if q.key in chosen])]


def _chunks(group: list[Question]) -> Iterator[list[Question]]:
    for start in range(0, len(group), GROUP):
        yield group[start : start + GROUP]


def _shard(groups: list[list[Question]], shard: tuple[int, int]) -> list[list[Question]]:
    """The i-th of n contiguous parts with about equally many questions; pictures stay whole."""
    number, parts = shard
    total, seen, mine = sum(map(len, groups)), 0, []
    for group in groups:
        if seen * parts // max(total, 1) == number - 1:
            mine.append(group)
        seen += len(group)
    return mine


def _digest(questions: Sequence[Question]) -> str:
    digest = hashlib.sha256()
    for question in questions:
        digest.update(f"{question.key!r}\n{question.prompt}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def check_pictures(questions: Sequence[Question], most: int = 5) -> None:
    """Raises EvaluationError that names the rows whose picture files are missing."""
    missing = [
        question
        for question in questions
        if question.picture is not None and question.picture.path and not question.picture.path.is_file()
    ]
    if missing:
        rows = ", ".join(f"row {q.row}: {q.picture.path}" for q in missing[:most] if q.picture)
        more = ", ..." if len(missing) > most else ""
        raise EvaluationError(
            f"{len(missing)} of {len(questions)} questions have no picture file ({rows}{more}): put the "
            "benchmark's pictures there"
        )
