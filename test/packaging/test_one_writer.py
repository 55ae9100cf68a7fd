# SPDX-License-Identifier: Apache-2.0
"""Only `files/` replaces or deletes; the rest writes into a directory or file that `files/` made for it."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "mobilevlm_ros"

MOVING = {"rename", "replace", "unlink", "rmtree", "remove", "rmdir", "removedirs", "move", "renames"}
WRITING = {
    "write_text",
    "write_bytes",
    "imwrite",
    "savefig",
    "tofile",
    "save_file",
    "savez",
    "savez_compressed",
}
PICKLES = {"pickle", "dill", "shelve", "marshal", "joblib", "cloudpickle"}

WRITE_WITHIN = {
    # into the directory, or at the path, that a `new_directory` or `new_file` gave them
    "checkpoints/checkpoint.py", "checkpoints/random_weights.py", "commands/measuring/trace.py",
    "bags/dataset/build.py",
    "engine/tensorrt/plans.py", "training/nano/scenes.py", "training/nano/train.py",
    "export/stages.py", "export/graphs/gpu.py", "export/graphs/onnx_writer.py",
    "export/graphs/tree_decoder.py", "evaluation/nano/pope_shaped.py",
    "evaluation/report/plot.py", "checkpoints/output.py",  # into memory
    # into a temporary directory
    "bags/reading/bag.py", "engine/onnxruntime/session.py", "evaluation/latency/compare.py",
    "bags/output/plot.py",  # into memory
    "training/data/shards.py", "training/run/results.py", "training/run/state.py",
}  # fmt: skip
APPEND = {
    # logs of a run that is going on: a line at a time, so that one that is killed keeps those before
    "evaluation/runner/journal.py", "training/run/metrics.py", "training/run/results.py",
    "training/nano/train.py",
}  # fmt: skip
MAKE_DIRECTORIES = {
    # what fails is told there: a plan or a cache that cannot be kept, the memory's folder, nano's own work
    "engine/tensorrt/plans.py", "engine/tensorrt/builder.py", "nodes/services/memory_server.py",
    "training/nano/features.py", "training/nano/scenes.py", "training/nano/train.py",
    "evaluation/nano/pope_shaped.py",  # within a new_directory
}  # fmt: skip
MOVE_WITHIN = {
    "checkpoints/random_weights.py",  # parts get their names once their number is known
}


def moves(call: str, owner: str, text: str) -> bool:
    is_path = owner in ("os", "shutil") or any(word in owner.lower() for word in ("path", "work", "file"))
    is_text = call == "replace" and "," in text  # str.replace(old, new)
    return call in MOVING and is_path and (not is_text or owner == "os")


def writes(call: str, owner: str, text: str) -> bool:
    saves = call == "save" and owner in ("np", "torch")
    return call in WRITING or saves or (call == "open" and bool(re.search(r"'wb?\+?'", text)))


def appends(call: str, owner: str, text: str) -> bool:
    return call == "open" and bool(re.search(r"'ab?\+?'", text))


def makes_directories(call: str, owner: str, text: str) -> bool:
    return call in ("mkdir", "makedirs") and ("parents=True" in text or call == "makedirs")


def unpickles(call: str, owner: str, text: str) -> bool:
    loads = call == "load" and owner in ("np", "numpy", "torch")
    return loads and "allow_pickle=False" not in text and "weights_only=True" not in text


@cache
def calls() -> list[tuple[str, str, str, str]]:
    """File, method, its owner and the whole call, of every call in the package."""
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            name = str(file.relative_to(PACKAGE))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                found.append((name, node.func.attr, ast.unparse(node.func.value), ast.unparse(node)))
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                found.append((name, node.func.id, "", ast.unparse(node)))
    return found


@pytest.mark.parametrize(
    ("is_meant", "allowed"),
    [
        (moves, MOVE_WITHIN),
        (writes, WRITE_WITHIN),
        (appends, APPEND),
        (unpickles, set()),
        (makes_directories, MAKE_DIRECTORIES),
    ],
)
def test_only_files_changes_what_a_user_may_own(is_meant: Callable[..., bool], allowed: set[str]) -> None:
    found = {(name, text) for name, *call in calls() if is_meant(*call) for text in call[2:]}
    others = {entry for entry in found if entry[0] not in allowed and not entry[0].startswith("files/")}
    assert others == set()
    assert allowed <= {entry[0] for entry in found}  # an exception that nothing needs any more goes


def test_nothing_is_pickled() -> None:
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                assert not {alias.name.partition(".")[0] for alias in node.names} & PICKLES, file
            elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in PICKLES:
                assert [alias.name for alias in node.names] == ["UnpicklingError"], file  # that of torch.load
