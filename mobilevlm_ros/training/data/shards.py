# SPDX-License-Identifier: Apache-2.0
"""Text as token shards: tokenised once, memory-mapped, read in blocks of the context's length.

    shards/wiki/tokens.bin   u16 or u32, documents one after another, each <s> ... </s>
    shards/wiki/index.json   {"dtype", "tokens", "documents", "vocabulary"}

A folder with index.json is one source; a folder of such folders is a mixture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from mobilevlm_ros.errors import DataError
from mobilevlm_ros.files.atomic_directory import DirectoryKind, new_directory
from mobilevlm_ros.files.small_file import regular
from mobilevlm_ros.processing.tokenizer import Tokenizer
from mobilevlm_ros.training.data.batch import Item

INDEX, TOKENS = "index.json", "tokens.bin"
_SHARD = DirectoryKind("folder of tokens", lambda path: None)  # never replaced


def read_documents(path: Path) -> Iterator[str]:
    """Texts of a .txt file (documents apart by blank lines) or a .jsonl file ("text"). Raises DataError."""
    try:
        with regular(path).open(encoding="utf-8") as lines:
            if path.suffix == ".jsonl":
                yield from _json_texts(path, lines)
                return
            document: list[str] = []
            for line in lines:
                if line.strip():
                    document.append(line)
                elif document:
                    yield "".join(document).strip()
                    document = []
            if document:
                yield "".join(document).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _json_texts(path: Path, lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)["text"]
        except (ValueError, KeyError, TypeError):
            text = None
        if not isinstance(text, str):
            raise DataError(f'{path}, line {number}: expected {{"text": ...}}')
        yield text


def write_shard(
    documents: Iterable[str],
    tokenizer: Tokenizer,
    path: Path,
    progress: Callable[[int], object] = lambda n: None,
) -> int:
    """Tokenises documents into the folder `path`, which appears complete or not at all. Returns the tokens.

    `progress` gets the number of tokens of each document. Raises DataError when there is no text,
    OutputError when the folder cannot be written or holds something.
    """
    dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    tokens = count = 0
    with new_directory(path, _SHARD) as work:
        with (work / TOKENS).open("wb") as file:
            for text in documents:
                ids = np.array([*tokenizer.encode(text), tokenizer.eos_id], dtype)
                file.write(ids.tobytes())
                tokens, count = tokens + len(ids), count + 1
                progress(len(ids))
        if not count:
            raise DataError(f"there is no text to tokenise into {path}")
        about = {"dtype": np.dtype(dtype).name, "tokens": tokens, "documents": count}
        (work / INDEX).write_text(json.dumps({**about, "vocabulary": tokenizer.vocab_size}) + "\n")
    return tokens


class TokenDataset(Dataset[Item]):
    """Blocks of `length` tokens of one or more sources; everything is taught.

    `mixture`: "name=weight ..." of the folder's sources; empty takes each source once. With weights an epoch
    has
    as many blocks as all sources together, and a source gets its share of them, its blocks again and again
    where
    it is small. Raises DataError.
    """

    template = "tokens"

    def __init__(self, folder: Path, tokenizer_file: Path, length: int, mixture: str = "") -> None:
        self.length, self.tokenizer_file = length, tokenizer_file
        sources = _sources(folder)
        vocabulary = self.tokenizer.vocab_size
        self._paths: dict[str, tuple[Path, str]] = {}
        blocks: dict[str, int] = {}
        for name, path in sources.items():
            about = _read_index(path)
            if about["vocabulary"] != vocabulary:
                raise DataError(
                    f"{path} was tokenised with {about['vocabulary']} ids and the model has {vocabulary}; "
                    "tokenise it again with the model's tokenizer.model"
                )
            self._paths[name] = path / TOKENS, about["dtype"]
            blocks[name] = about["tokens"] // length
        total = sum(blocks.values())
        if not total:
            raise DataError(f"{folder} holds fewer than {length} tokens; add text, or lower data.max_length")
        shares = _shares(mixture, blocks, folder)
        self._blocks = [
            (name, index % blocks[name]) for name, count in shares.items() for index in range(count)
        ]
        self._maps: dict[str, NDArray[np.unsignedinteger]] = {}

    @property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer(self.tokenizer_file)

    @property
    def lengths(self) -> list[int]:
        """All alike; negative as text is (Sample.modality_length)."""
        return [-self.length] * len(self)

    def __len__(self) -> int:
        return len(self._blocks)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_maps": {}}

    def __getitem__(self, index: int) -> Item:
        name, block = self._blocks[index]
        if name not in self._maps:
            path, dtype = self._paths[name]
            self._maps[name] = np.memmap(path, np.dtype(dtype), mode="r")
        ids = self._maps[name][block * self.length : (block + 1) * self.length].astype(np.int64).tolist()
        if len(ids) < self.length:
            raise DataError(f"{self._paths[name][0]} is shorter than its index says; tokenise it again")
        return Item(f"{name}:{block}", ids, ids)


def _sources(folder: Path) -> dict[str, Path]:
    if (folder / INDEX).is_file():
        return {folder.name: folder}
    found = {path.name: path for path in sorted(folder.glob("*")) if (path / INDEX).is_file()}
    if not found:
        raise DataError(
            f"{folder} holds no token shards; make them: mobilevlm tokenize TEXT -o {folder}/NAME"
        )
    return found


def _read_index(path: Path) -> dict[str, Any]:
    try:
        about = json.loads((path / INDEX).read_text())
        size = (path / TOKENS).stat().st_size
        fits = size == about["tokens"] * np.dtype(about["dtype"]).itemsize and about["vocabulary"] > 0
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is a broken shard: {error}; tokenise it again") from error
    if not fits:
        raise DataError(f"{path / TOKENS} is not as long as {INDEX} says; tokenise it again")
    return dict(about)


def _shares(mixture: str, blocks: dict[str, int], folder: Path) -> dict[str, int]:
    if not mixture:
        return blocks
    weights: dict[str, float] = {}
    for word in mixture.split():
        name, _, text = word.partition("=")
        try:
            weights[name] = float(text)
        except ValueError:
            raise DataError(f"data.mixture: {word!r} is not NAME=WEIGHT") from None
        if not blocks.get(name) or not 0 < weights[name] < float("inf"):
            raise DataError(
                f"data.mixture: {word!r} needs a weight above 0 and a source in {folder}: {', '.join(blocks)}"
            )
    whole = sum(weights.values())
    return {name: round(sum(blocks.values()) * weight / whole) for name, weight in weights.items()}
