# SPDX-License-Identifier: Apache-2.0
"""Writes a data set: pictures, conversations in LLaVA's format, and the table for a person's review.

The JSON serves two readers at once: `mobilevlm train` takes `conversations`, `mobilevlm eval vqa` takes
`question`, `answer` and `choices` of the same object.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.bags.dataset.review import Example, reviewed, to_csv
from mobilevlm_ros.bags.reading.bag import Bag
from mobilevlm_ros.bags.reading.picture import picture_of
from mobilevlm_ros.bags.records import Record
from mobilevlm_ros.errors import BagError, DataError, ImageError, OptionError
from mobilevlm_ros.files.atomic_directory import DirectoryKind, new_directory
from mobilevlm_ros.processing.prompt_template import IMAGE_PLACEHOLDER
from mobilevlm_ros.ros.images.encodings import parse_encodings

TRAIN, EXAM, REVIEW, IMAGES = "train.json", "exam.json", "review.csv", "images"

JPEG_QUALITY = 95


@dataclass(frozen=True)
class DatasetOptions:
    """How a data set is made.

    Attributes:
        png: pictures without loss; else JPEG.
        holdout: share of the pictures, the last ones in time, that go to the exam and not to the training.
        minimum_confidence: less sure answers are left out, 0 to 1.
        bags: where recordings lie now, by their names; those of the records where they are not named.
        encodings: as the node's parameter of that name.
        review: a table that a person has edited; None: every answer as it is.
    """

    png: bool = False
    holdout: float = 0.0
    minimum_confidence: float = 0.0
    bags: Sequence[Path] = ()
    encodings: tuple[str, ...] = ()
    review: Path | None = None

    def check(self) -> DatasetOptions:
        """Itself. Raises OptionError for a share that is none."""
        for name, value in (("--holdout", self.holdout), ("--min-confidence", self.minimum_confidence)):
            if not 0 <= value < 1:
                raise OptionError(f"{name} is {value:g}: give 0 or more, and less than 1")
        return self


@dataclass
class Built:
    """What a data set holds: examples for training and exam, pictures; and what was left out."""

    train: int = 0
    exam: int = 0
    pictures: int = 0
    unsure: int = 0
    bad: int = 0


def build_dataset(
    records: Iterable[Record],
    output: Path,
    options: DatasetOptions,
    *,
    overwrite: bool = False,
    on_picture: Callable[[], object] = lambda: None,
) -> Built:
    """Writes the directory `output`.

    Args:
        records: captions and answers; monitors and abstentions are passed over.
        on_picture: called after each picture.

    Raises:
        BagError: a recording cannot be read.
        DataError: there is nothing to learn from, or the table of the review does not fit.
        OutputError: the directory cannot be written.
    """
    options.check()
    built = Built()
    chosen = list(_chosen(records, options, built))
    if not chosen:
        raise DataError(
            "there is no caption and no answer to learn from: give the .jsonl of caption-bag or ask-bag"
        )
    examples = [example for example, _ in chosen]
    table = to_csv(examples).encode()
    if options.review is not None:
        examples = reviewed(options.review, examples)
        table = options.review.read_bytes()  # it may lie in the directory that is replaced
    wanted = {example.image: record for example, record in chosen}
    kept = {example.image for example in examples}
    with new_directory(output, KIND, overwrite=overwrite) as work:
        (work / IMAGES).mkdir()
        written = set()
        for image, pixels in _pictures({i: r for i, r in wanted.items() if i in kept}, options, built):
            _write_picture(work / image, pixels)
            written.add(image)
            on_picture()
        examples = [example for example in examples if example.image in written]
        built.pictures = len(written)
        train, exam = _split(examples, wanted, options.holdout)
        built.train, built.exam = len(train), len(exam)
        _write_json(work / TRAIN, train)
        if exam:
            _write_json(work / EXAM, exam)
        (work / REVIEW).write_bytes(table)
    return built


def _chosen(
    records: Iterable[Record], options: DatasetOptions, built: Built
) -> Iterator[tuple[Example, Record]]:
    seen: set[str] = set()
    for record in records:
        if record.kind == "monitor" or record.abstained or not record.text:
            continue
        if record.confidence < options.minimum_confidence:
            built.unsure += 1
            continue
        image = f"{IMAGES}/{_name(record)}{'.png' if options.png else '.jpg'}"
        name = base = _name(record)
        number = 1
        while name in seen:
            number += 1
            name = f"{base}-{number}"
        seen.add(name)
        choices = tuple(record.probabilities)
        yield Example(name, image, record.question, record.text, choices, record.confidence), record


def _name(record: Record) -> str:
    """Of a picture: recording, topic, and its place there."""
    stem = Path(record.bag).name.split(".")[0]
    return re.sub(r"[^A-Za-z0-9]+", "-", f"{stem}{record.topic}").strip("-") + f"-{record.index:06d}"


def _pictures(
    wanted: dict[str, Record], options: DatasetOptions, built: Built
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Each picture once, recording after recording."""
    by_bag: dict[str, dict[tuple[str, int], tuple[str, Record]]] = {}
    for image, record in wanted.items():
        by_bag.setdefault(record.bag, {})[record.topic, record.index] = (image, record)
    for name, pictures in by_bag.items():
        times = [record.bag_time_ns for _, record in pictures.values()]
        with Bag(_place(name, options.bags)) as bag:
            topics = {topic for topic, _ in pictures}
            for source in bag.messages(topics, min(times), max(times)):
                found = pictures.pop((source.topic, source.index), None)
                if found is None:
                    continue
                image, record = found
                try:
                    picture = picture_of(source)
                    if picture.stamp_ns != record.stamp_ns:
                        raise BagError(
                            f"picture {source.index} of {source.topic} in {bag.path} has another stamp than "
                            "its record: is it another recording of that name?"
                        )
                    yield image, picture.decode(parse_encodings(options.encodings, record.camera))
                except ImageError:
                    built.bad += 1
        if pictures:
            topic, index = next(iter(pictures))
            raise BagError(
                f"{name} does not hold picture {index} of {topic or 'an unknown topic'}: is it the recording "
                "that was captioned or asked?"
            )


def _place(name: str, bags: Sequence[Path]) -> Path:
    for path in bags:
        if path.name == Path(name).name or len(bags) == 1:
            return path
    if not Path(name).exists():
        raise BagError(f"the recording {name} is not there any more: say where it lies now with --bag PATH")
    return Path(name)


def _write_picture(path: Path, rgb: NDArray[np.uint8]) -> None:
    settings = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if path.suffix == ".jpg" else []
    _, data = cv2.imencode(path.suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), settings)
    path.write_bytes(data.tobytes())


def _split(
    examples: list[Example], wanted: dict[str, Record], holdout: float
) -> tuple[list[Example], list[Example]]:
    """(training, exam). The exam gets whole pictures, the last ones in time: neighbours look alike."""
    images = sorted({e.image for e in examples}, key=lambda image: wanted[image].time_ns)
    held = set(images[len(images) - round(holdout * len(images)) :])
    return [e for e in examples if e.image not in held], [e for e in examples if e.image in held]


def _write_json(path: Path, examples: Sequence[Example]) -> None:
    text = json.dumps([_entry(e) for e in examples], ensure_ascii=False, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def _entry(example: Example) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "id": example.id,
        "image": example.image,
        "conversations": [
            {"from": "human", "value": f"{IMAGE_PLACEHOLDER}\n{example.question}"},
            {"from": "gpt", "value": example.answer},
        ],
        "question": example.question,
        "answer": example.answer,
    }
    if example.choices:
        entry["choices"] = list(example.choices)
    return entry


def _members(path: Path) -> list[str] | None:
    if not (path / TRAIN).is_file() or not (path / IMAGES).is_dir():
        return None
    return [TRAIN, EXAM, REVIEW, IMAGES, *(f"{IMAGES}/{file.name}" for file in (path / IMAGES).iterdir())]


KIND = DirectoryKind("data set", _members)
