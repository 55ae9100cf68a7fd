# SPDX-License-Identifier: Apache-2.0
"""GGUF files that tell of more than a model can have are refused before anything is allocated."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from time import process_time

import pytest

from mobilevlm_ros.checkpoints.gguf.file import GGUFFile
from mobilevlm_ros.errors import CheckpointError

UINT32, STRING, ARRAY = 4, 8, 9


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def header(tensors: int, fields: int) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, fields)


def many_fields(count: int) -> bytes:
    return header(0, count) + b"".join(
        text(f"k{i}") + struct.pack("<II", UINT32, i) for i in range(min(count, 300_000))
    )


def many_strings(count: int) -> bytes:
    return header(0, 1) + text("a") + struct.pack("<IIQ", ARRAY, STRING, count) + text("") * min(count, 1000)


def many_arrays(count: int) -> bytes:
    one = struct.pack("<IIQ", ARRAY, UINT32, count) + bytes(4 * 1000)
    return header(0, 3) + b"".join(text(f"a{i}") + one for i in range(3))


def nested_arrays(count: int) -> bytes:
    return (
        header(0, 1) + text("a") + struct.pack("<I", ARRAY) + struct.pack("<IQ", ARRAY, 1) * min(count, 10**5)
    )


def many_tensors(count: int) -> bytes:
    return header(count, 0) + bytes(1000)


@pytest.mark.parametrize("make", [many_fields, many_strings, many_arrays, nested_arrays, many_tensors])
@pytest.mark.parametrize("count", [300_000_000, 2**40, 2**64 - 1])
def test_counts_are_checked_first(tmp_path: Path, make: Callable[[int], bytes], count: int) -> None:
    path = tmp_path / "hostile.gguf"
    path.write_bytes(make(count))
    tracemalloc.start()
    start = process_time()
    with pytest.raises(CheckpointError):
        GGUFFile(path)
    assert process_time() - start < 1.0
    assert tracemalloc.get_traced_memory()[1] < 50 << 20
    tracemalloc.stop()


def test_what_is_too_much_is_told(tmp_path: Path) -> None:
    path = tmp_path / "hostile.gguf"
    path.write_bytes(many_fields(300_000))
    with pytest.raises(CheckpointError, match="300000 metadata, more than the 4096"):
        GGUFFile(path)
