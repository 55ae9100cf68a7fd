# SPDX-License-Identifier: Apache-2.0
"""WebDataset shards: tar files in which the files of one sample follow each other and share their key.

    000041.json    a conversation as in LLaVA's files; its "image" may be left out
    000041.jpg     its picture; several are 000041.0.jpg, 000041.1.jpg, ...
    000042.txt     or a caption instead, as in LAION's and Conceptual Captions' shards
    000042.png

The key ends at the first dot of the file's name (github.com/webdataset/webdataset, its README).
Only headers are read ahead. Pictures stay in the tar file and are read when their turn comes, in any order:
shuffling, resuming and workers are those of other data.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mobilevlm_ros.errors import DataError
from mobilevlm_ros.processing.prompt_template import IMAGE_PLACEHOLDER
from mobilevlm_ros.training.data.conversations import Problem, Sample, parse
from mobilevlm_ros.training.data.pictures import Member, TarPictures

PICTURES = frozenset(("jpg", "jpeg", "png", "webp"))
MAX_RECORD = 16 << 20
"""Bytes of a .json or .txt member; a conversation takes thousands."""
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MAX_SHARDS = 1_000_000

Files = dict[str, Member]
"""The members of one sample by extension."""


def is_shards(path: Path) -> bool:
    """Whether `path` names tar files: one, a pattern such as shards/{0000..0041}.tar, or a folder of them."""
    return path.name.endswith((".tar", ".tar.gz", ".tgz")) or (path.is_dir() and any(path.glob("*.tar")))


def shards_of(path: Path) -> list[Path]:
    """The tar files that `path` names, in order. Raises DataError for one that is not there."""
    if path.is_dir():
        return sorted(path.glob("*.tar"))
    if path.name.endswith((".gz", ".tgz")):
        raise DataError(f"{path} is compressed, and pictures are read where they lie: gunzip it first")
    shards = [path]
    span = _RANGE.search(path.name)
    if span:
        first, last = int(span[1]), int(span[2])
        if not first <= last < first + _MAX_SHARDS:
            raise DataError(f"{path}: {span[0]} is no range of shards; write {{0000..0041}}")
        before, after = path.name[: span.start()], path.name[span.end() :]
        names = (f"{before}{i:0{len(span[1])}}{after}" for i in range(first, last + 1))
        shards = [path.with_name(name) for name in names]
    missing = [shard for shard in shards if not shard.is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"{missing[0]}{more} does not exist; give tar files, or a folder of them")
    return shards


def read_shards(path: Path) -> tuple[list[Sample], list[Problem], TarPictures]:
    """All samples of the tar files that `path` names, what is wrong with those that are none, their pictures.

    A sample without an id is called by its shard and key. Raises DataError for a file that is no tar file.
    """
    samples: list[Sample] = []
    problems: list[Problem] = []
    pictures: dict[str, Member] = {}
    for shard in shards_of(path):
        for key, files in _samples(shard):
            name = f"{shard.name}/{key}"
            found = {f"{name}.{extension}": files[extension] for extension in sorted(files, key=_order)
                     if extension.rpartition(".")[2] in PICTURES}  # fmt: skip
            pictures.update(found)
            read = _sample(name, files, tuple(found))
            if isinstance(read, Problem):
                problems.append(read)
            else:
                samples.append(read)
    if not samples and not problems:
        raise DataError(f"{path} holds no samples; a sample is KEY.json or KEY.txt with KEY.jpg")
    return samples, problems, TarPictures(pictures)


def _order(extension: str) -> tuple[int, str]:
    """'10.jpg' comes after '9.jpg'."""
    number = extension.partition(".")[0]
    return (int(number) if number.isdigit() else -1, extension)


def _samples(shard: Path) -> Iterator[tuple[str, Files]]:
    """Keys and files of the samples of one tar file, in its order."""
    key, files = "", Files()
    try:
        with tarfile.open(shard, "r:") as tar:
            for entry in tar:
                if not entry.isreg():
                    continue
                path = PurePosixPath(entry.name)
                stem, _, extension = path.name.partition(".")
                this = str(path.with_name(stem)) if stem else ""
                if not this:
                    continue
                if this != key and files:
                    yield key, files
                    files = Files()
                key = this
                files[extension.lower()] = Member(shard, entry.offset_data, entry.size)
    except (tarfile.TarError, OSError, ValueError) as error:
        raise DataError(f"{shard} cannot be read as a tar file: {error}") from error
    if files:
        yield key, files


def _sample(name: str, files: Files, pictures: tuple[str, ...]) -> Sample | Problem:
    record = files.get("json") or files.get("txt")
    if record is None:
        return Problem(name, "has no .json and no .txt")
    if record.size > MAX_RECORD:
        return Problem(name, f"has a text of more than {MAX_RECORD} bytes")
    try:
        text = record.read().decode("utf-8")
        if "json" not in files:
            return Sample(name, (("human", IMAGE_PLACEHOLDER), ("gpt", text.strip())), pictures)
        told = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        return Problem(name, f"has a text that cannot be read: {error}")
    if isinstance(told, dict):
        told = {"id": name, **told, "image": list(pictures)}
    return parse(told, name)
