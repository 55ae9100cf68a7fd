# SPDX-License-Identifier: Apache-2.0
"""Every test session has a ROS domain of its own on this machine: it neither hears nor disturbs others."""

import importlib.util
import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mobilevlm_ros.ros.resources import private_environment

# Before anything imports rclpy; child processes inherit it.
os.environ.update(private_environment(dict(os.environ)))

# A background job is started with Ctrl-C ignored, and hands that on to its children; some tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
NANO = ROOT / "models" / "nano" / "bundle"
RAY = {"test_ray_run.py", "test_fleet.py"}
"""Tests that start a Ray cluster."""

# A slow machine is no fault of what is tested; time limits are pytest-timeout's.
if importlib.util.find_spec("hypothesis"):
    from hypothesis import settings

    settings.register_profile("no-deadline", settings.default, deadline=None)
    settings.load_profile("no-deadline")

# Fixtures that several folders share. What needs no ROS, or no torch, is tested without them.
pytest_plugins = ["fixtures.graph", "fixtures.disks"]
TORCH_FIXTURES = ["fixtures.checkpoints", "fixtures.engines"]
if TORCH := importlib.util.find_spec("torch") is not None:
    pytest_plugins += TORCH_FIXTURES
if not all(importlib.util.find_spec(name) for name in ("rclpy", "mobilevlm_msgs")):
    collect_ignore_glob = ["*/test_node_*.py", "client/*", "ros/test_spin.py", "demo/test_run.py"]


# A robot has no torch, and tests too (`colcon test`): what needs it is skipped there.
NO_TORCH = "torch is not installed (pip install torch)"


def no_torch_here() -> None:
    pytest.skip(NO_TORCH)


for plugin in [] if TORCH else TORCH_FIXTURES:
    source = Path(__file__).parent.joinpath(*plugin.split(".")).with_suffix(".py").read_text()
    for found in re.finditer(r"^@pytest\.fixture.*\ndef (\w+)", source, re.MULTILINE):
        globals()[found[1]] = pytest.fixture(no_torch_here, name=found[1])


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    report = (yield).get_result()
    missing = re.search(r"No module named 'torch'|import of torch halted", str(report.longrepr))
    if not TORCH and report.failed and missing:
        report.outcome = "skipped"
        report.longrepr = (str(collector.path), 1, f"Skipped: {NO_TORCH}")


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With several processes (`make test`) a file is one process's, and so are all that ask the session's
    nodes, which are started once.
    """
    if not config.pluginmanager.hasplugin("xdist"):
        return
    session = {"graph", "node", "any_bundle"}
    shared = {item.path for item in items if session <= set(getattr(item, "fixturenames", ()))}
    for item in items:
        # One Ray at a time: a second one would join the cluster of the first.
        group = "nodes" if item.path in shared else "ray" if item.path.name in RAY else item.location[0]
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def nano() -> Path:
    """The shipped bundle, whose answers are true; do not change it."""
    if not NANO.is_dir():
        pytest.skip(f"{NANO} is missing: its answers are what this test is about")
    return NANO


@pytest.fixture(scope="session")
def any_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that runs: nano's where it is shipped, else one of a few kilobytes with random weights."""
    if NANO.is_dir():
        return NANO
    pytest.importorskip("torch", reason="without models/nano/bundle one has to be built with PyTorch")
    from mobilevlm_ros.checkpoints.random_weights import CONFIGS, write_random_checkpoint
    from mobilevlm_ros.export.builder import build_bundle

    path = tmp_path_factory.mktemp("any_bundle")
    tokenizer = ROOT / "test" / "data" / "parity" / "ckpt" / "tiny-ldpnet" / "tokenizer.model"
    write_random_checkpoint(CONFIGS["tiny"], path / "checkpoint", tokenizer)
    build_bundle(path / "checkpoint", path / "bundle")
    return path / "bundle"


@pytest.fixture(scope="session")
def endless_bundle(any_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, but no token ends an answer: it goes on until max_tokens, a timeout or a cancel."""
    path = tmp_path_factory.mktemp("endless") / "bundle"
    shutil.copytree(any_bundle, path)
    manifest = json.loads((path / "bundle.json").read_text())
    (path / "bundle.json").write_text(json.dumps({**manifest, "stop_ids": []}))
    return path
