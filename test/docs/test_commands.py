# SPDX-License-Identifier: Apache-2.0
"""Every command of README and docs does what the page says, typed in a clone with a plain environment.

A block that is not tried says why in a comment (`fixtures/doc_blocks.py`). nano stands in for
released weights.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Timer

import pytest
import yaml
from fixtures.doc_blocks import (
    BESIDE,
    COMMANDS,
    NEEDS,
    OTHERS,
    ROOT,
    Block,
    blocks,
    differences,
    indented,
    pages,
    session,
)
from PIL import Image

from mobilevlm_ros.ros.resources import private_environment
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene_sampler import sample_scene

ALL = [block for page in pages() for block in blocks(page)]
TRIED = [block for block in ALL if block.language in COMMANDS and not block.needs]
TRIED.sort(key=lambda block: block.keys.get("with", ""))  # what runs beside them runs for a while only
LIMIT = 120.0
"""Seconds for one block, on a machine that is busy with other work."""
HAS_ROS = all(importlib.util.find_spec(name) for name in ("rclpy", "mobilevlm_msgs"))


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has before the first command: the tree, a home with a bundle, and a photograph."""
    made = tmp_path_factory.mktemp("docs")
    clone = made / "clone"
    clone.mkdir()
    for entry in ROOT.iterdir():
        if not entry.name.startswith((".", "build", "install", "log")):
            (clone / entry.name).symlink_to(entry)
    shutil.copytree(ROOT / "models" / "nano" / "bundle", made / "home" / "bundles" / "v2-1.7b")
    for name, seconds in {"photo.jpg": 0.0, "door.jpg": 0.0, "before.jpg": 0.0, "after.jpg": 1.0}.items():
        Image.fromarray(observe(sample_scene(3), seconds).image).save(clone / name)
    return clone


@pytest.fixture(scope="module")
def environment(clone: Path) -> dict[str, str]:
    """PATH, HOME, this tree, and a ROS graph of our own; nothing else."""
    kept = ("ROS_DISTRO", "LD_LIBRARY_PATH", "LANG")
    return {
        **private_environment({name: os.environ[name] for name in kept if name in os.environ}),
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(clone.parent / "home"),
        "PYTHONPATH": str(ROOT),
    }


@pytest.fixture(scope="module")
def port() -> int:
    """For what the pages say of 8080, which may be taken here."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def node(clone: Path, environment: dict[str, str]) -> Iterator[None]:
    """A node with two simulated cameras, `front` and `rear`."""
    if not HAS_ROS:
        pytest.skip("needs ROS 2")
    from mobilevlm_ros.demo.node_process import Child

    cameras = {"front": 3, "rear": 8}
    children = [
        Child(
            name,
            "mobilevlm_ros.nodes.camera_node",
            {"seed": seed, "rate": 2.0},
            environment,
            [f"__node:={name}", *(f"{topic}:={name}/{topic}" for topic in ("image", "image/compressed"))],
        )
        for name, seed in cameras.items()
    ]
    parameters = {"cameras": "['front', 'rear']", "threads": 1, "history_mb": 64, "history_rate": 4.0}
    children.append(Child("node", "mobilevlm_ros.nodes.mobilevlm_node", parameters, environment))
    try:
        for camera in cameras:
            hello = f"mobilevlm ask Hello? --ros --camera {camera} --wait-for-frame 60 --wait-for-node 60"
            status, said = typed(hello, clone, environment)
            assert status == 0, said + children[-1].log(20)
        yield
    finally:
        for child in children:
            child.stop()


@pytest.fixture(scope="module")
def server(clone: Path, environment: dict[str, str], port: int) -> Iterator[None]:
    """`mobilevlm serve`, with the address that the pages name."""
    process = background(f"mobilevlm serve --port {port}", clone, environment)
    try:
        wait_for(process, "http://")
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(LIMIT)


def typed(command: str, clone: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Exit status of what is typed into a shell, and what it says."""
    result = subprocess.run(
        ["bash", "-euc", command],
        cwd=clone,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
    )
    return result.returncode, result.stdout


def wait_for(process: subprocess.Popen[str], words: str) -> str:
    """What a program says until these words have come."""
    said = ""
    watchdog = Timer(LIMIT, process.kill)
    watchdog.start()
    try:
        for line in process.stdout or ():
            said += line
            if words in said:
                return said
        pytest.fail(f"it ended without {words!r}:\n{said}")
    finally:
        watchdog.cancel()


def background(command: str, clone: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    """A program that goes on beside us."""
    return subprocess.Popen(
        ["bash", "-c", f"exec {command}"],
        cwd=clone,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def stays(command: str, words: str, clone: Path, environment: dict[str, str]) -> None:
    """A program goes on until Ctrl-C, and then ends well."""
    process = background(command, clone, environment)
    try:
        wait_for(process, words)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=LIMIT)
        assert process.returncode in (0, 130), said
        assert "Traceback" not in said
    finally:
        process.kill()


def own_clone(clone: Path, page: str) -> Path:
    """The clone of a page's reader: the files that another page's commands have made are not there."""
    own = clone.parent / page.replace("/", "-")
    if not own.exists():
        own.mkdir()
        for entry in clone.iterdir():
            if entry.is_symlink() or entry.suffix == ".jpg":
                (own / entry.name).symlink_to(entry.resolve())
    return own


@pytest.mark.parametrize("block", TRIED, ids=str)
def test_a_block_does_what_the_page_says(
    block: Block, clone: Path, environment: dict[str, str], port: int, request: pytest.FixtureRequest
) -> None:
    if beside := block.keys.get("with"):
        request.getfixturevalue(beside)
    text = block.text.replace("localhost:8080", f"localhost:{port}")
    clone = own_clone(clone, block.page)
    if block.language == "python":
        status, said = typed(f"python -c {shlex.quote(text)}", clone, environment)
        assert status == 0, said
    elif block.language == "console":
        for command, expected in session(block):
            _, said = typed(command, clone, environment)
            assert not differences(expected, said), f"$ {command}\n{said}"
    elif words := block.keys.get("until"):
        for command in text.splitlines():
            stays(
                command.replace("mobilevlm serve", f"mobilevlm serve --port {port}"),
                words,
                clone,
                environment,
            )
    else:
        status, said = typed(text, clone, environment)
        assert status == 0, said


def test_every_block_is_tried_or_says_why_not() -> None:
    unknown = [str(block) for block in ALL if block.language not in COMMANDS | OTHERS]
    assert not unknown, "a block names its language, of those in fixtures/doc_blocks.py"
    for block in ALL:
        assert set(block.needs) <= NEEDS.keys(), f"{block}: needs={block.keys['needs']}"
        assert set(block.keys) <= {"needs", "with", "until"}, str(block)
        assert block.keys.get("with", "node") in BESIDE, str(block)


def test_no_block_hides_behind_its_indentation() -> None:
    hidden = [f"{page.relative_to(ROOT)}:{line}" for page in pages() for line in indented(page)]
    assert not hidden, "fence these, and name their language"


@pytest.mark.parametrize("block", [b for b in ALL if b.language in ("yaml", "json")], ids=str)
def test_what_is_to_be_copied_into_a_file_can_be_read(block: Block) -> None:
    yaml.safe_load(block.text) if block.language == "yaml" else json.loads(block.text)


def test_a_wrong_page_is_noticed() -> None:
    said = "An orange cone is on the left.\n  confidence 0.976, 61 ms\n  car: 0.024\n"
    assert not differences(["An orange cone is on the left.", "...", "  car: 0.031"], said)
    assert not differences(["  confidence 0.97, 5 ms"], said)
    assert differences(["  car: 0.5"], said) and differences(["cone"], said)
    assert differences(["  car: 0.024", "An orange cone is on the left."], said), "another order"
    assert differences(["4 of 4 answers"], "8 of 8 answers")
