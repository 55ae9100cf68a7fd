# SPDX-License-Identifier: Apache-2.0
"""docker/ names only what the tree has, and passes the linters. No image is built: that needs an engine."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
INSTRUCTIONS = [
    line.split(maxsplit=1)
    for line in re.sub(r"\\\n", "", re.sub(r"(?m)^\s*#.*\n", "", DOCKERFILE)).splitlines()
    if line.strip()
]
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
BIN = Path(sys.executable).parent


def tool(name: str) -> str:
    found = shutil.which(name, path=str(BIN)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (it comes with the extra dev)")
    return found


def values(instruction: str) -> list[str]:
    return [rest[0] for name, *rest in INSTRUCTIONS if name == instruction]


def sent(path: Path) -> bool:
    """Whether .dockerignore lets a file of the tree into a build; the last pattern that matches wins."""
    name, is_sent = path.relative_to(ROOT).as_posix(), True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip().removeprefix("!")
        if not pattern or pattern.startswith("#"):
            continue
        parts = name.split("/")
        prefixes = ["/".join(parts[: end + 1]) for end in range(len(parts))]
        any_depth = pattern.startswith("**/")
        hit = (
            any(fnmatch(part, pattern[3:]) for part in parts)
            if any_depth
            else any(
                prefix.count("/") == pattern.count("/") and fnmatch(prefix, pattern) for prefix in prefixes
            )
        )
        if pattern == "*" or hit:
            is_sent = line.strip().startswith("!")
    return is_sent


def test_the_linters_find_nothing() -> None:
    for command in (
        [tool("hadolint"), "--failure-threshold", "style", str(DOCKER / "Dockerfile")],
        [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(DOCKER / "compose.yaml")],
        *(["bash", "-n", str(script)] for script in DOCKER.glob("*.sh")),
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_copied_exists_and_is_sent_to_the_build() -> None:
    sources = [word for value in values("COPY") for word in shlex.split(value)[:-1] if word != "."]
    assert {"package.xml", "docker/requirements.txt", "docker/entrypoint.sh"} <= set(sources)
    for source in sources:
        assert (ROOT / source).is_file() and sent(ROOT / source), source
    for script in DOCKER.glob("*.sh"):
        assert script.stat().st_mode & 0o111, script


def test_a_build_gets_the_package_and_nothing_else() -> None:
    needed = [
        "setup.py",
        "setup.cfg",
        "pyproject.toml",
        "package.xml",
        "tools/build_interfaces.py",
        "LICENSE",
    ]
    needed += ["resource/mobilevlm_ros", "resource/bin/mobilevlm", "msg/package.xml", "config/fastdds.xml"]
    needed += ["launch/mobilevlm.launch.py", "mobilevlm_ros/cli.py", "models/nano/bundle/bundle.json"]
    for name in needed:
        assert (ROOT / name).is_file() and sent(ROOT / name), name
    for name in (
        ".git/config",
        ".venv/bin/python",
        "test/conftest.py",
        "docs/python.md",
        "build/x",
        "models/nano/x",
    ):
        assert not sent(ROOT / name), name
    assert not sent(ROOT / "mobilevlm_ros/__pycache__/cli.pyc")


def test_every_machine_has_a_stage_with_a_pinned_image() -> None:
    stages = {}
    for value in values("FROM"):
        image, _, name = value.partition(" AS ")
        stages[name] = image
    assert stages.pop("") == "${BASE}"
    assert set(stages) == {"jazzy", "kilted", "jetpack6", "jetpack7"}
    for name, image in stages.items():
        tag = image.partition(":")[2]
        assert tag and tag != "latest", image
        if image.startswith("ros:"):
            assert tag.startswith(f"{name}-ros-base-"), image
    default = next(value for value in values("ARG") if value.startswith("BASE="))
    assert default.removeprefix("BASE=") in stages


def test_the_user_is_not_root_and_variables_are_not_bashs_own() -> None:
    assert values("USER") == ["${ROBOT_UID}"]
    arguments = {value.partition("=")[0]: value.partition("=")[2] for value in values("ARG")}
    assert int(arguments["ROBOT_UID"]) > 0
    # bash sets these itself, so that an argument of that name would not arrive in RUN.
    assert not set(arguments) & {"UID", "EUID", "GROUPS", "PPID", "HOSTNAME", "RANDOM", "SECONDS"}
    given = SERVICES["node"]["build"]["args"]
    assert set(given) <= set(arguments)


def test_python_packages_are_pinned_within_what_setup_cfg_allows() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    texts = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    allowed = {}
    for line in "\n".join(texts).splitlines():
        if line.strip() and not line.strip().startswith("#"):
            wanted = Requirement(line.strip())
            allowed.setdefault(wanted.name.lower(), wanted.specifier)
    lines = (DOCKER / "requirements.txt").read_text().splitlines()
    pinned = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert {"onnxruntime", "sentencepiece", "simplejpeg"} <= {one.name for one in pinned}
    for one in pinned:
        (exact,) = one.specifier
        assert exact.operator == "==", one
        assert exact.version in allowed[one.name.lower()], one


def _commands() -> list[list[str]]:
    commands = [json.loads(value) for value in values("CMD")]
    commands += [service["command"] for service in SERVICES.values()]
    health = next(value for value in values("HEALTHCHECK"))
    commands.append(json.loads(health[health.index("[") :])[1:])
    return [[str(word) for word in command] for command in commands]


@pytest.mark.parametrize("command", _commands(), ids=" ".join)
def test_every_command_is_one_of_ours(command: list[str]) -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    scripts = re.findall(r"(?m)^(\w+) =", config["options.entry_points"]["console_scripts"])
    if command[0] == "mobilevlm":
        from mobilevlm_ros.commands.verbs import parser_of

        parser_of(command[1]).parse_args(command[2:])
        return
    assert command[:3][0] == "ros2" and command[2] == "mobilevlm_ros"
    if command[1] == "run":
        assert command[3] in scripts
        source = (ROOT / "mobilevlm_ros" / "nodes" / f"{command[3]}.py").read_text()
        for name in re.findall(r"(\w+):=", " ".join(command)):
            assert f'"{name}"' in source, name
        return
    assert command[1] == "launch"
    launch = (ROOT / "launch" / command[3]).read_text()
    for name in re.findall(r"(\w+):=", " ".join(command[4:])):
        assert f'"{name}": (' in launch, name


def test_paths_inside_of_the_image_are_installed_ones() -> None:
    for path in re.findall(r"/opt/mobilevlm/install/share/mobilevlm_ros/(\S+)", DOCKERFILE):
        assert (ROOT / path).is_file(), path  # setup.py installs config/ there (test_distribution.py)
    assert "/opt/mobilevlm/install/setup.bash" in (DOCKER / "entrypoint.sh").read_text()
    assert "WORKDIR /opt/mobilevlm\n" in DOCKERFILE and "colcon build --merge-install" in DOCKERFILE


def test_what_is_commented_out_in_compose_is_valid_too(tmp_path: Path) -> None:
    text = (DOCKER / "compose.yaml").read_text()
    uncommented = re.sub(r"(?m)^(\s*)# (?=( *)[\w-]+:|  +)", r"\1", text[text.index("services:") :])
    uncommented = uncommented.replace("  camera: # a simulated", "  simulated: # a simulated")
    whole = tmp_path / "compose.yaml"
    whole.write_text(text[: text.index("services:")] + uncommented)
    made = yaml.safe_load(whole.read_text())
    assert made["services"]["camera"]["devices"] and made["services"]["node"]["volumes"]
    command = [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(whole)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
