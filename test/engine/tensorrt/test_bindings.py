# SPDX-License-Identifier: Apache-2.0
"""The code against the REAL Python bindings of TensorRT, without a GPU.

The bindings (1 MB, from PyPI) need a few symbols of libnvinfer and its companions; a stand-in of some lines
has them. Classes, members and enums are then NVIDIA's own; only making a Builder or a Runtime fails, as it
does on any machine without a GPU.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mobilevlm_ros.engine.tensorrt import api
from mobilevlm_ros.engine.tensorrt.library import version_of

PACKAGE = Path(inspect.getfile(api)).parent
ROOT = PACKAGE.parents[2]
WHEELS = {
    "8.6.1": "tensorrt-bindings==8.6.1",
    "10.3.0": "tensorrt-cu12-bindings==10.3.0",
    "10.16.1": "tensorrt-cu12-bindings==10.16.1.11",
    "11.4.0": "tensorrt-cu13-bindings==11.4.0.106",
}
"""JetPack 6.0, 6.2, 7.2, and the newest."""
LIBRARIES = ("nvinfer", "nvonnxparser", "nvinfer_plugin", "nvparsers")


def used() -> set[str]:
    """Every member the code uses: 'Class.member' of the Protocols, 'Enum.MEMBER' after any `trt.`."""
    members = set()
    for name, kind in vars(api).items():
        if inspect.isclass(kind) and kind.__module__ == api.__name__:
            own = [
                *inspect.get_annotations(kind),
                *(key for key, value in vars(kind).items() if callable(value)),
            ]
            members |= {f"{name}.{member}" for member in own if not member.startswith("_")}
    for path in PACKAGE.glob("*.py"):
        members |= {chain for node in ast.walk(ast.parse(path.read_text())) if (chain := _chain(node))}
    return members


def _chain(node: ast.AST) -> str:
    """'A.B' of the expression `trt.A.B` (or `library.trt.A.B`, `flags.B`), '' of others."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    names.insert(0, node.id)
    if names[0] == "flags":  # builder.network_flags
        return ".".join(["NetworkDefinitionCreationFlag", *names[1:]])
    if "trt" not in names[:2]:
        return ""
    return ".".join(name for name in names[names.index("trt") + 1 :] if not name.startswith("__"))


def has(version: tuple[int, int], member: str) -> bool:
    """Whether the code expects that version to have it."""
    owner = member.partition(".")[0]
    since = max(api.SINCE.get(member, (8, 5)), api.SINCE.get(owner, (8, 5)))
    return since <= version < api.UNTIL.get(member, (99, 0))


@pytest.fixture(scope="module", params=WHEELS)
def bindings(request, compile_library, unpack_wheel) -> tuple[str, dict[str, str]]:
    """A version, and the environment in which `import tensorrt_bindings` finds it."""
    unpacked = unpack_wheel(WHEELS[request.param])
    major = request.param.split(".")[0]
    for library in LIBRARIES:
        soname = f"lib{library}.so.{major}"
        source = Path(__file__).with_name("nvinfer.c")
        compile_library(source, unpacked / soname, f"-Wl,-soname,{soname}")
    paths = os.pathsep.join([str(unpacked), str(ROOT)])
    return request.param, {**os.environ, "LD_LIBRARY_PATH": str(unpacked), "PYTHONPATH": paths}


def run(bindings: tuple[str, dict[str, str]], script: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", script],
        env=bindings[1],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_every_member_in_use_exists(bindings):
    version = version_of(bindings[0])
    members = used()
    assert {"IExecutionContext.execute_async_v3", "BuilderFlag.FP16", "ILogger.Severity.ERROR"} <= members
    script = f"""
import functools, json
import tensorrt_bindings as trt
def has(member):
    try:
        functools.reduce(getattr, member.split("."), trt)
    except AttributeError:
        return False
    return True
print(json.dumps({{member: has(member) for member in {sorted(members)!r}}}))
"""
    found = json.loads(run(bindings, script))
    expected = {member: has(version, member) for member in members}
    assert {m for m in members if expected[m] and not found[m]} == set(), "used, and not there"
    assert {m for m in members if found[m] and m in api.UNTIL and not expected[m]} == set(), (
        "UNTIL is too early"
    )
    assert {m for m in members if found[m] and m in api.SINCE and not expected[m]} == set(), (
        "SINCE is too late"
    )


def test_our_subclasses_work_and_a_missing_gpu_is_an_engine_error(bindings):
    script = """
import logging
from pathlib import Path
import tensorrt_bindings as trt
from mobilevlm_ros.engine.tensorrt import builder, engine
from mobilevlm_ros.engine.tensorrt.library import Library
from mobilevlm_ros.errors import EngineError

library = Library(trt)
assert isinstance(library.logger, trt.ILogger)
library.logger.log(trt.ILogger.Severity.ERROR, "something  happened")
assert library.logger.errors == ["something happened"]
for work in (
    lambda: builder.build(library, builder.Recipe(Path("x.onnx"), ())),
    lambda: engine.deserialize(library, b"", ()),
):
    try:
        work()
    except EngineError as error:
        assert "could not start" in str(error), error
    else:
        raise AssertionError("a Builder without a GPU")
flags = builder.network_flags(library)
assert flags == {8: 1, 10: 2, 11: 0}[library.version[0]], flags
assert library.typed == (library.version[0] >= 10)
if library.typed:
    monitor = builder.progress_monitor(trt, "x.onnx")
    assert isinstance(monitor, trt.IProgressMonitor)
    monitor.phase_start("a", None, 3)
    assert monitor.step_complete("a", 1) is True
    monitor.phase_finish("a")
print(library.version_text)
"""
    assert run(bindings, script).startswith(bindings[0])
