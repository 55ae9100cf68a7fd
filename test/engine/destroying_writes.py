# SPDX-License-Identifier: Apache-2.0
"""Loads a bundle, does to its files whatever can be done to a file, and compares what the model computes.

Usage: destroying_writes.py BUNDLE FOLDER new|old
"""

from __future__ import annotations

import mmap
import os
import shutil
import sys
from typing import Any

import numpy as np
import onnxruntime

from mobilevlm_ros.engine.runtime import load_runtime


def truncate(path: str) -> None:
    os.truncate(path, 0)


def halve(path: str) -> None:
    os.truncate(path, os.path.getsize(path) // 2)


def overwrite(path: str) -> None:
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        file.write(b"\x55" * size)


def write_mapped(path: str) -> None:
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[:] = b"\xaa" * len(mapped)
        mapped.flush()


def make_hole(path: str) -> None:
    size = os.path.getsize(path)
    os.truncate(path, 0)
    os.truncate(path, size)


def remove(path: str) -> None:
    os.remove(path)


def replace(path: str) -> None:
    with open(path + ".new", "wb") as file:
        file.write(os.urandom(os.path.getsize(path)))
    os.replace(path + ".new", path)


def run(runtime: Any) -> Any:
    language = runtime.language
    image = runtime.vision.encode(np.full((1, 48, 48, 3), 90, np.uint8))
    text = language.embed(np.arange(3, 700))[None]
    logits = [language.forward(part, language.new_cache(), 1) for part in (image, text[:, :300])]
    return np.concatenate([part.ravel() for part in (image, text, *logits)])


def main(source: str, folder: str, release: str) -> None:
    if release == "old":  # ONNX Runtime before 1.23
        del onnxruntime.SessionOptions.add_external_initializers_from_files_in_memory
    for write in (truncate, halve, overwrite, write_mapped, make_hole, remove, replace):
        name = write.__name__
        bundle = shutil.copytree(source, os.path.join(folder, name))
        runtime = load_runtime(bundle, threads=1)
        expected = run(runtime)
        with open("/proc/self/maps") as maps:
            assert bundle not in maps.read(), name
        assert not runtime.bundle.changed_files(), name
        for file in os.listdir(bundle):
            write(os.path.join(bundle, file))
        assert sorted(runtime.bundle.changed_files()) == sorted(runtime.bundle.verified), name
        assert np.array_equal(run(runtime), expected), name
    print("unmoved")


if __name__ == "__main__":
    main(*sys.argv[1:])
