# SPDX-License-Identifier: Apache-2.0
"""Conversations and pictures as a PyTorch dataset, checked before the first step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from mobilevlm_ros.errors import DataError, ImageError
from mobilevlm_ros.model.config import MobileVLMConfig
from mobilevlm_ros.processing.image import IMAGE_MEAN, IMAGE_STD, prepare
from mobilevlm_ros.processing.tokenizer import IMAGE_TOKEN, Tokenizer
from mobilevlm_ros.training.data.batch import Item
from mobilevlm_ros.training.data.conversations import Problem, Sample, find_problem, read_conversations
from mobilevlm_ros.training.data.labels import IGNORE, encode
from mobilevlm_ros.training.data.pictures import FolderPictures, PictureSource
from mobilevlm_ros.training.data.webdataset import is_shards, read_shards

Errors = Literal["refuse", "skip"]
LongSamples = Literal["refuse", "skip", "truncate"]
_SHOWN = 5


@dataclass(frozen=True)
class Pictures:
    """How pictures become pixels: the tower's side S and the aspect, `pad` or `crop`."""

    size: int
    aspect: Literal["pad", "crop"]
    tokens: int  # positions that one takes in the context

    @classmethod
    def of(cls, config: MobileVLMConfig) -> Pictures:
        return cls(config.vision.image_size, config.aspect, config.num_image_tokens)


class ConversationDataset(Dataset[Item]):
    """Item i is sample i, tokenised and with its pictures; a picture that cannot be read is a DataError,
    or teaches nothing where `errors` is "skip"."""

    def __init__(
        self,
        samples: Sequence[Sample],
        tokenizer_file: Path,
        template: str,
        max_length: int,
        *,
        source: PictureSource | None = None,
        pictures: Pictures | None = None,
        errors: Errors = "refuse",
    ) -> None:
        self.samples = samples
        self.tokenizer_file = tokenizer_file
        self.template, self.max_length = template, max_length
        self.source, self.pictures, self.errors = source or FolderPictures(Path()), pictures, errors
        self._tokenizer: Tokenizer | None = None

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def lengths(self) -> list[int]:
        """See Sample.modality_length."""
        return [sample.modality_length for sample in self.samples]

    @property
    def tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:  # each worker opens its own
            self._tokenizer = Tokenizer(self.tokenizer_file)
        return self._tokenizer

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_tokenizer": None}

    def __getitem__(self, index: int) -> Item:
        sample = self.samples[index]
        encoded = encode(sample, self.template, self.tokenizer, self.max_length)
        ids, labels, warning = encoded.ids, encoded.labels, encoded.warning
        pixels = None
        if self.pictures is not None:
            try:
                pixels = self._pixels(sample)
            except ImageError as error:
                if self.errors == "refuse":
                    raise DataError(
                        f"sample {sample.id}: {error}; --set data.errors=skip leaves such samples out"
                    ) from error
                marks = max(1, ids.count(IMAGE_TOKEN))
                pixels = np.zeros((marks, 3, self.pictures.size, self.pictures.size), np.float32)
                labels, warning = [IGNORE] * len(ids), f"teaches nothing: {error}"
        return Item(sample.id, ids[: self.max_length], labels[: self.max_length], pixels, warning)

    def _pixels(self, sample: Sample) -> NDArray[np.float32]:
        assert self.pictures is not None
        size = self.pictures.size
        if not sample.images:  # officially, text comes with a zero picture of which nothing is used
            return np.zeros((1, 3, size, size), np.float32)
        read = self.source.read
        squares = [prepare(read(name), size, aspect=self.pictures.aspect) for name in sample.images]
        return _normalize(np.stack(squares))


def _normalize(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """u8[n,S,S,3] -> f32[n,3,S,S], in CLIPImageProcessor's order of roundings, to which gradients are
    sensitive."""
    scaled = (pixels * (1 / 255)).astype(np.float32)
    normal = (scaled - np.array(IMAGE_MEAN, np.float32)) / np.array(IMAGE_STD, np.float32)
    return np.ascontiguousarray(np.moveaxis(normal, -1, -3))


def open_dataset(
    path: Path,
    tokenizer_file: Path,
    template: str,
    max_length: int,
    context: int,
    *,
    images: Path | None = None,
    pictures: Pictures | None = None,
    errors: Errors = "refuse",
    long_samples: LongSamples = "refuse",
    report: Callable[[str], None] = print,
) -> ConversationDataset:
    """The usable samples of a file, or of WebDataset shards (see webdataset), whose pictures are in them.

    What is malformed, without its picture or too long is refused by id, or left out and reported. `context`:
    positions of the model, image tokens included. Raises DataError.
    """
    source: PictureSource = FolderPictures(images or Path())
    if is_shards(path):
        samples, problems, source = read_shards(path)
    else:
        samples, problems = read_conversations(path)
    if pictures is None:
        samples = [Sample(sample.id, sample.turns) for sample in samples]
    usable: list[Sample] = []
    for sample in samples:
        reason = find_problem(sample, template) or _missing_picture(sample, source)
        if reason:
            problems.append(Problem(sample.id, reason))
        else:
            usable.append(sample)
    _settle(path, problems, len(usable), errors == "skip", "data.errors=skip leaves them out", report)
    if long_samples != "truncate":
        limit = min(max_length, context)
        tokenizer = Tokenizer(tokenizer_file)
        extra = pictures.tokens - 1 if pictures else 0
        measured = [(sample, _positions(sample, template, tokenizer, extra, limit)) for sample in usable]
        usable = [sample for sample, positions in measured if positions <= limit]
        too_long = [Problem(s.id, f"takes {n} positions of {limit}") for s, n in measured if n > limit]
        remedy = "data.long_samples=truncate cuts them as the official run does, =skip leaves them out"
        _settle(path, too_long, len(usable), long_samples == "skip", remedy, report)
    if not usable:
        raise DataError(f"{path} holds no usable sample")
    return ConversationDataset(
        usable, tokenizer_file, template, max_length, source=source, pictures=pictures, errors=errors
    )


def _positions(sample: Sample, template: str, tokenizer: Tokenizer, extra: int, limit: int) -> int:
    """Positions of a sample: an upper bound where that is within the limit, exact where it decides."""
    pictures = extra * len(sample.images)
    bound = (
        256 + sum(len(text.encode()) + 16 for _, text in sample.turns) + pictures
    )  # a token per byte at most
    if bound <= limit:
        return bound
    return len(encode(sample, template, tokenizer, 1 << 30).ids) + pictures


def _missing_picture(sample: Sample, source: PictureSource) -> str | None:
    return next((problem for name in sample.images if (problem := source.find_problem(name))), None)


def _settle(
    path: Path, problems: list[Problem], usable: int, skip: bool, remedy: str, report: Callable[[str], None]
) -> None:
    if not problems:
        return
    shown = "; ".join(str(problem) for problem in problems[:_SHOWN])
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    if not skip:
        raise DataError(
            f"{path}: {len(problems)} of {len(problems) + usable} samples cannot be used: {shown}{more}. "
            f"Mend them, or --set {remedy}"
        )
    report(f"{path}: {len(problems)} samples left out: {shown}{more}")
