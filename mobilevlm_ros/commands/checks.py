# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm checks`: what is here, what is missing, and how to get it."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from mobilevlm_ros.commands import options
from mobilevlm_ros.errors import MobileVLMError
from mobilevlm_ros.version import __version__

SERVING = {
    "numpy": "numpy",
    "cv2": "opencv-python-headless",
    "onnxruntime": "onnxruntime",
    "sentencepiece": "sentencepiece",
    "simplejpeg": "simplejpeg",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "tqdm": "tqdm",
}
"""Module to package, of what answering needs."""

EXTRAS = {
    "typed": ("llguidance",),
    "bags": ("rosbags", "mcap"),
    "build": ("torch", "onnx", "safetensors", "huggingface_hub", "gguf"),
}
"""Extra to the modules that it brings, as setup.cfg has them."""

SOURCE = "source the setup.bash of your ROS, and of the workspace that holds this package"
"""What makes ROS and our messages importable."""

OK, MISSING, OPTIONAL = "ok", "MISSING", "-"


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        group: heading that it stands under.
        state: OK, MISSING (something that is needed), or OPTIONAL (absent, and not needed to answer).
        remedy: what to do about it; empty where nothing is to be done.
    """

    group: str
    name: str
    state: str
    detail: str
    remedy: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    options.add_bundle(parser)
    options.add_json(parser, "the report")
    parser.add_argument(
        "--node",
        metavar="NAME",
        nargs="?",
        const="mobilevlm",
        help="check a running node alone, without loading a model: status 0 when it is active, so that it "
        "answers questions (for the health check of a container; default name: mobilevlm)",
    )


def main(args: argparse.Namespace) -> int:
    """Prints the report; 0 when questions can be answered here (with ROS or without), or by the node that
    is asked for; else 1.
    """
    found: list[Check] = []
    group = ""
    for check in _running(args.node) if args.node else _all(args.bundle):
        found.append(check)
        if not args.json:
            if check.group != group:
                print(f"{chr(10) if group else ''}{check.group}")
                group = check.group
            print(f"  {check.state:8} {check.name}: {check.detail}", flush=True)
            if check.remedy:
                print(f"           {check.remedy}")
    if args.json:
        print(json.dumps([asdict(check) for check in found], indent=1))
    return 1 if any(check.state == MISSING for check in found) else 0


def _all(bundle: Path | None) -> Iterator[Check]:
    system = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    yield Check("this machine", "mobilevlm_ros", OK, f"{__version__}, {system}")
    yield _gpu()
    for module, package in SERVING.items():
        yield _package(module, package, "answering questions", f"pip install {package}", MISSING)
    for extra, modules in EXTRAS.items():
        for module in modules:
            what = f"optional, extra '{extra}'"
            yield _package(module, module, what, f"pip install 'mobilevlm_ros[{extra}]'", OPTIONAL)
    yield _vector_search()
    yield from _guarded("model", "bundle", lambda: _model(bundle))
    yield from _ros()


def _package(module: str, package: str, group: str, remedy: str, absent: str) -> Check:
    group = "packages for " + group if absent == MISSING else f"packages: {group}"
    try:
        made = importlib.import_module(module)
    except Exception as error:  # whatever a broken installation raises
        broken = not isinstance(error, ModuleNotFoundError)
        detail = f"cannot be imported: {' '.join(str(error).split())}" if broken else "not installed"
        return Check(group, package, absent, detail, remedy)
    version = str(getattr(made, "__version__", "") or _version(package))
    return Check(group, package, OK, version)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "installed"


def _gpu() -> Check:
    from mobilevlm_ros.engine.cuda.device import find_gpu

    gpu = find_gpu()
    if gpu is None:
        return Check("this machine", "GPU", OPTIONAL, "no NVIDIA GPU with a driver: models run on the CPU")
    return Check("this machine", "GPU", OK, str(gpu))


def _vector_search() -> Check:
    from mobilevlm_ros.memory.nearest import extension_trouble

    group, trouble = "packages: optional, extra 'memory'", extension_trouble()
    if not trouble:
        return Check(
            group, "sqlite-vec", OK, f"{_version('sqlite-vec')}; memories are searched inside SQLite"
        )
    remedy = "pip install 'mobilevlm_ros[memory]'" if "not installed" in trouble else ""
    detail = f"{trouble}: memories are searched with NumPy, which finds the same"
    return Check(group, "sqlite-vec", OPTIONAL, detail, remedy)


def _guarded(group: str, name: str, checks: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    try:
        yield from checks()
    except (MobileVLMError, ImportError) as error:
        yield Check(group, name, MISSING, " ".join(str(error).split()))


def _model(path: Path | None) -> Iterator[Check]:
    from mobilevlm_ros.engine.runtime import find_bundle, load_runtime
    from mobilevlm_ros.inference.assistant import Assistant
    from mobilevlm_ros.nodes.self_test import self_test

    runtime = load_runtime(path)
    size = sum(file.stat().st_size for file in runtime.bundle.path.rglob("*") if file.is_file())
    name = runtime.bundle.manifest.name
    yield Check("model", "bundle", OK, f"{find_bundle(path)} ({name}, {size / 1e6:.0f} MB)")
    yield Check("model", "backend", OK, f"{runtime.backend_name}, {runtime.reason}")
    tested = self_test(Assistant(runtime))
    yield Check("model", "self-test", OK, f"{tested.said!r} in {tested.seconds:.1f} s")
    for text in runtime.fallbacks:
        yield Check("model", "better backend", OPTIONAL, text)


def _ros() -> Iterator[Check]:
    group = "ROS 2 (for the node and --ros)"
    distro = os.environ.get("ROS_DISTRO", "")
    for module in ("rclpy", "sensor_msgs", "mobilevlm_msgs"):
        try:
            importlib.import_module(module if module == "rclpy" else f"{module}.msg")
        except Exception as error:
            detail = f"cannot be imported: {' '.join(str(error).split())}"
            yield Check(group, module, OPTIONAL, detail, SOURCE)
            return
        yield Check(group, module, OK, distro or "imported")
    domain = os.environ.get("ROS_DOMAIN_ID", "0")
    yield Check(group, "domain", OK, f"ROS_DOMAIN_ID {domain}")
    yield _profile(group, distro)


def _running(node: str) -> Iterator[Check]:
    group = "running node"
    try:
        from mobilevlm_ros.client.node_state import lifecycle_state

        state = lifecycle_state(node)
    except ImportError as error:
        yield Check(group, node, MISSING, f"cannot be asked: {error}", SOURCE)
    except MobileVLMError as error:
        yield Check(group, node, MISSING, str(error))
    else:
        active = state == "active"
        remedy = f"its log and /diagnostics say why; then `ros2 lifecycle set {node} activate`"
        yield Check(group, node, OK if active else MISSING, state, "" if active else remedy)


def _profile(group: str, distro: str) -> Check:
    from mobilevlm_ros.ros.resources import shared_file

    middleware = os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp")
    if "fastrtps" not in middleware:
        return Check(group, "middleware", OK, f"{middleware} (config/fastdds.xml is for Fast DDS only)")
    name = f"FAST{'RTPS' if distro in ('humble', 'jazzy') else 'DDS'}_DEFAULT_PROFILES_FILE"
    profile = os.environ.get(name, "")
    if profile and Path(profile).is_file():
        return Check(group, "DDS profile", OK, f"{name}={profile}")
    detail = f"{name} names {profile}, which does not exist" if profile else "none: large raw images get lost"
    ours = shared_file("config", "fastdds.xml") or "config/fastdds.xml"
    return Check(group, "DDS profile", OPTIONAL, detail, f"export {name}={ours} for the camera and the node")
