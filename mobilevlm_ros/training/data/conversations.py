# SPDX-License-Identifier: Apache-2.0
"""Conversation files: LLaVA's JSON or JSONL (with pictures) and ShareGPT's JSON (text), read and checked.

A record is {"id", "image": path or list of paths (optional), "conversations": [{"from", "value"}, ...]},
where
"from" is "human" or "gpt" and "<image>" in a human's text marks a picture.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilevlm_ros.errors import DataError
from mobilevlm_ros.files.kinds import LIST, OBJECT, TEXT, TEXTS, kind_of
from mobilevlm_ros.files.small_file import regular
from mobilevlm_ros.processing.prompt_template import IMAGE_PLACEHOLDER

ROLES = ("human", "gpt")


@dataclass(frozen=True)
class Sample:
    """One conversation. `turns` are (role, text) as the file has them; `images` paths as the file has
    them."""

    id: str
    turns: tuple[tuple[str, str], ...]
    images: tuple[str, ...] = ()

    @property
    def modality_length(self) -> int:
        """Words of all turns; negative without a picture. What the official sampler sorts by."""
        words = sum(len(text.split()) for _, text in self.turns)
        return words if self.images else -words


@dataclass(frozen=True)
class Problem:
    """Why a sample cannot be used."""

    id: str
    reason: str

    def __str__(self) -> str:
        return f"{self.id}: {self.reason}"


def read_conversations(path: str | Path) -> tuple[list[Sample], list[Problem]]:
    """All samples of a .json or .jsonl file, and what is wrong with the records that are none.

    A record without an id is called by its place in the file. Raises DataError when the file itself is
    unusable.
    """
    samples: list[Sample] = []
    problems: list[Problem] = []
    for place, record in _records(Path(path)):
        read = record if isinstance(record, Problem) else parse(record, place)
        if isinstance(read, Problem):
            problems.append(read)
        else:
            samples.append(read)
    if not samples and not problems:
        raise DataError(f"{path} holds no samples; give a file with at least one conversation")
    return samples, problems


def parse(record: Any, place: str) -> Sample | Problem:
    """One record of a file. `place` names it where it has no id."""
    if not OBJECT.fits(record):
        return Problem(place, f"is {kind_of(record)}, not an object with 'conversations'")
    name = str(record.get("id", place))
    turns = record.get("conversations")
    if not LIST.fits(turns) or not turns:
        return Problem(name, "has no 'conversations'; give a list of {'from', 'value'}")
    for turn in turns:
        if not OBJECT.fits(turn) or not TEXT.fits(turn.get("value")):
            return Problem(name, "has a turn without a text 'value'")
        if turn.get("from") not in ROLES:
            return Problem(name, f"has a turn from {turn.get('from')!r}; known: human, gpt")
    images = record.get("image", [])
    images = [images] if TEXT.fits(images) else images
    if not TEXTS.fits(images) or not all(images):
        return Problem(name, "'image' must be a path, or a list of paths")
    return Sample(name, tuple((turn["from"], turn["value"]) for turn in turns), tuple(images))


def find_problem(sample: Sample, template: str) -> str | None:
    """Why the template cannot take a sample, or None. `template` is "v1" or "plain"."""
    if template == "plain":
        if len(sample.turns) != 2:
            return f"has {len(sample.turns)} turns; captions have two, a human's and the caption"
        if not sample.images or IMAGE_PLACEHOLDER not in sample.turns[0][1]:
            return "has no picture; the plain template teaches captions of pictures"
        return None
    turns = spoken(sample)
    if not turns:
        return "has no turn of a human"
    for index, (role, _) in enumerate(turns):
        if role != ROLES[index % 2]:
            return f"has two turns of {role!r} in a row; human and gpt must alternate"
    marks = sum(text.count(IMAGE_PLACEHOLDER) for _, text in gather_images(sample))
    if sample.images and marks not in (0, len(sample.images)):
        return f"has {marks} <image> marks for {len(sample.images)} pictures; they must match"
    return None


def spoken(sample: Sample) -> tuple[tuple[str, str], ...]:
    """The turns from the first human one on: a leading answer has no question, and is dropped."""
    return sample.turns[1:] if sample.turns[0][0] == "gpt" else sample.turns


def gather_images(sample: Sample) -> list[tuple[str, str]]:
    """The turns with each turn's <image> marks moved to its beginning, each followed by a newline.

    Without pictures "<image>" is ordinary text. One picture marked twice in a turn is one picture.
    """
    if not sample.images:
        return list(sample.turns)
    turns = []
    for role, text in sample.turns:
        count = text.count(IMAGE_PLACEHOLDER)
        if count:
            count = 1 if len(sample.images) == 1 else count
            text = f"{IMAGE_PLACEHOLDER}\n" * count + text.replace(IMAGE_PLACEHOLDER, "").strip()
        turns.append((role, text.strip() if count else text))
    return turns


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        if path.suffix == ".jsonl":
            with regular(path).open(encoding="utf-8") as lines:
                yield from _lines(lines)
            return
        data = json.loads(regular(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; give a .json or .jsonl file of conversations") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if not LIST.fits(data):
        raise DataError(f"{path} holds {kind_of(data)}; give a list of samples, or a .jsonl file")
    for index, record in enumerate(data):
        yield f"sample {index}", record


def _lines(lines: Iterable[str]) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield f"line {number}", json.loads(line)
        except (ValueError, RecursionError) as error:
            yield f"line {number}", Problem(f"line {number}", f"is not JSON: {error}")
