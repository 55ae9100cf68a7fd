# SPDX-License-Identifier: Apache-2.0
"""The interface definitions: service and action are equal, every field is explained, codes are unique."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

MSG = Path(__file__).parents[2] / "msg"
FILES = sorted(p for p in MSG.rglob("*") if p.suffix in (".msg", ".srv", ".action"))
FIELD = re.compile(r"^([\w/]+(?:\[\])?)\s+([a-z]\w*)(?:\s+([^#\s]+))?\s*(#.*)?$")


def sections(path: Path) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for line in path.read_text(encoding="utf-8").splitlines():
        if line == "---":
            parts.append([])
        else:
            parts[-1].append(line)
    return parts


def fields(lines: list[str]) -> list[tuple[str, str, str | None]]:
    """(type, name, default) in order."""
    return [(m[1], m[2], m[3]) for m in map(FIELD.match, lines) if m]


def test_service_and_action_take_and_give_the_same() -> None:
    request, response = sections(MSG / "srv" / "AskImage.srv")
    goal, result, _ = sections(MSG / "action" / "AskImage.action")
    assert fields(request) == fields(goal)
    assert fields(response) == fields(result)
    assert len(fields(request)) > 20
    assert fields(request)[0] == ("string", "question", None)


def test_a_cameras_answer_has_the_fields_of_the_response() -> None:
    response = fields(sections(MSG / "srv" / "AskImage.srv")[1])
    per_camera = fields(sections(MSG / "msg" / "CameraAnswer.msg")[0])
    assert per_camera
    assert set(per_camera) <= set(response)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_field_is_explained(path: Path) -> None:
    # By a comment on its line, or by one above its paragraph.
    for section in sections(path):
        explained = False
        for line in section:
            if not line.strip():
                explained = False
            elif line.startswith("#"):
                explained = True
            elif path.name != "CameraAnswer.msg":  # its header names where to read
                assert explained or "#" in line, f"{path.name}: {line}"


def test_cmake_generates_every_definition() -> None:
    listed = re.findall(r"^  ((?:msg|srv|action)/\S+)$", (MSG / "CMakeLists.txt").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(str(p.relative_to(MSG)) for p in FILES)


def test_generated_defaults_and_codes() -> None:
    action = pytest.importorskip("mobilevlm_msgs.action", reason="needs ROS 2 and mobilevlm_msgs")
    from mobilevlm_msgs.msg import Status
    from mobilevlm_msgs.srv import AskImage

    for request in (AskImage.Request(), action.AskImage.Goal()):
        assert request.top_p == 1.0
        assert request.repetition_penalty == 1.0
        assert request.temperature == 0.0
        assert request.max_age == 0.0
        assert request.camera == ""
        assert len(request.image.data) == 0
    # What nobody filled in is no success.
    assert AskImage.Response().status.code == Status.UNKNOWN != Status.OK
    lines = sections(MSG / "msg" / "Status.msg")[0]
    codes = dict(re.findall(r"^uint8 ([A-Z_]+)=(\d+)", "\n".join(lines), re.MULTILINE))
    assert len(set(codes.values())) == len(codes) >= 15
    assert {name: getattr(Status, name) for name in codes} == {n: int(c) for n, c in codes.items()}


def test_a_service_between_two_processes() -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2")
    peer = [sys.executable, str(Path(__file__).with_name("ask_image_peer.py"))]
    with subprocess.Popen([*peer, "serve"], stdout=subprocess.PIPE, text=True) as server:
        try:
            asked = subprocess.run([*peer, "ask", "öpen?"], capture_output=True, text=True, timeout=90)
            assert (asked.returncode, asked.stdout, asked.stderr) == (0, "?nepö\n", "")
            assert server.wait(timeout=60) == 0
        finally:
            server.kill()
