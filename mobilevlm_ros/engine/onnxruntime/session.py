# SPDX-License-Identifier: Apache-2.0
"""Sessions of a bundle's graphs whose weights are copies of their own.

ONNX Runtime maps the files of weights that a graph names. Most weights it packs into memory of its own; the
others stay mapped, and change or vanish with the file. So it gets the files' content instead.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnxruntime

from mobilevlm_ros.engine.bundle import Bundle
from mobilevlm_ros.errors import BundleError

_LOCATION = re.compile(rb"\x0a\x08location\x12([\x01-\x7f])")
"""A file of weights as a graph names it (onnx.proto): a StringStringEntryProto with the key 'location'. Its
value follows, as long as the group says."""


def open_bundle_session(
    bundle: Bundle, name: str, options: onnxruntime.SessionOptions, providers: Sequence[str]
) -> onnxruntime.InferenceSession:
    """A session of the graph `name`. Nothing of the bundle is mapped once it is there.

    `options` are used up: a session of another graph needs its own. Raises BundleError, and what ONNX Runtime
    raises.
    """
    graph = bundle.read(name).tobytes()
    files = sorted(_weight_files(graph))
    for file in files:
        if file not in bundle.manifest.files:
            raise BundleError(
                f"bundle {bundle.path}: {name} needs {file}, which its manifest does not list; "
                "build it again with `mobilevlm build`"
            )
    if not hasattr(options, "add_external_initializers_from_files_in_memory"):
        return _from_private_files(bundle, name, graph, files, options, providers)
    if files:
        contents = [bundle.read(file) for file in files]
        sizes = [len(content) for content in contents]
        options.add_external_initializers_from_files_in_memory(files, contents, sizes)
    return onnxruntime.InferenceSession(graph, options, providers=providers)


def _weight_files(graph: bytes) -> set[str]:
    found = set()
    for match in _LOCATION.finditer(graph):
        value = graph[match.end() : match.end() + match[1][0]]
        found.add(value.decode(errors="replace"))
    return found


def _from_private_files(
    bundle: Bundle,
    name: str,
    graph: bytes,
    files: Sequence[str],
    options: onnxruntime.SessionOptions,
    providers: Sequence[str],
) -> onnxruntime.InferenceSession:
    """For ONNX Runtime before 1.23: maps copies that have no name any more, so nobody can change them."""
    with tempfile.TemporaryDirectory(prefix="mobilevlm-") as folder:
        (Path(folder) / name).write_bytes(graph)
        for file in files:
            bundle.read(file).tofile(Path(folder) / file)
        return onnxruntime.InferenceSession(Path(folder) / name, options, providers=providers)
