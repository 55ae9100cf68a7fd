# SPDX-License-Identifier: Apache-2.0
"""Build and install msg/ (the ROS 2 package mobilevlm_msgs) with CMake.

Used by setup.py, so that a plain `colcon build` or `pip install .` of this repository gives the interfaces,
and by `make`, which installs them straight into its virtual environment:

    python3 tools/build_interfaces.py --build-directory DIR [--prefix PREFIX]

Needs only the standard library.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(os.path.realpath(__file__)).parent.parent
SOURCE = ROOT / "msg"
PACKAGE = "mobilevlm_msgs"
# Left beside the interfaces that setup.py installed, to tell them from a separately built mobilevlm_msgs.
OURS = Path("share", PACKAGE, "installed_by_mobilevlm_ros")
SKIP = "MOBILEVLM_SKIP_INTERFACES"


class InterfaceBuildError(Exception):
    """The interfaces cannot be built here; the message says what is missing and how to get it."""


def own_prefix() -> Path:
    """The prefix of this interpreter (colcon points sys.prefix at the install folder, and keeps this one)."""
    return Path(getattr(sys, "real_prefix", sys.prefix))


def ros_prefixes() -> list[Path]:
    """Where ROS packages may be: the sourced ones first, then this interpreter's own (ROS from PyPI)."""
    sourced = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    return [*sourced, *(p for p in [own_prefix()] if p not in sourced)]


def find(package: str) -> "Path | None":
    """The first prefix that holds a ROS package, or None."""
    marker = Path("share/ament_index/resource_index/packages", package)
    return next((p for p in ros_prefixes() if (p / marker).exists()), None)


def reason_to_skip() -> str:
    """Why setup.py need not build the interfaces; '' when it must.

    Raises InterfaceBuildError where ROS is present but its interface generators are not: skipping there would
    give a node that dies on its first import.
    """
    if os.environ.get(SKIP, "") not in ("", "0"):
        return f"{SKIP} is set"
    marker = Path("share/ament_index/resource_index/packages", PACKAGE)
    for prefix in ros_prefixes():
        if (prefix / marker).exists() and not (prefix / OURS).exists():
            return f"{PACKAGE} is already in {prefix}"
    if find("rosidl_default_generators"):
        return ""
    if find("rclpy") is None:
        return "no ROS 2 here (AMENT_PREFIX_PATH is empty): `mobilevlm ask` works, the node needs ROS"
    raise InterfaceBuildError(
        "ROS 2 is here, but not its interface generators. With apt: `rosdep install --from-paths src -iy` or "
        "`sudo apt install ros-$ROS_DISTRO-ros-base`. With wheels: "
        "`pip install -r requirements/ros-kilted.txt`. "
        f"To install without the interfaces: {SKIP}=1."
    )


def _environment() -> dict[str, str]:
    """The environment for CMake: this interpreter first, every ROS prefix known, no foreign sitecustomize.

    colcon and pip put a sitecustomize.py on PYTHONPATH that changes sys.prefix or hides installed packages;
    the generators, which CMake runs with the same Python, must see neither. MAKEFLAGS may name a job server
    of make that is not for us.
    """
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    python_path = [p for p in env.get("PYTHONPATH", "").split(os.pathsep) if p]
    env["PYTHONPATH"] = os.pathsep.join(p for p in python_path if not Path(p, "sitecustomize.py").exists())
    own = [str(Path(sys.executable).parent), str(own_prefix() / "bin")]
    env["PATH"] = os.pathsep.join([*own, env.get("PATH", "")])
    for name in ("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH"):
        known = [p for p in env.get(name, "").split(os.pathsep) if p]
        env[name] = os.pathsep.join(dict.fromkeys([*known, *map(str, ros_prefixes())]))
    return env


def _run(command: list[str], env: dict[str, str]) -> None:
    if subprocess.run(command, env=env, check=False).returncode:
        raise InterfaceBuildError(f"building {PACKAGE} failed (see the output above): {' '.join(command)}")


def build(directory: Path, prefix: Path, python_directory: str = "") -> Path:
    """Configure and build under `directory`, to be installed into `prefix`; returns CMake's build folder.

    python_directory: where Python packages go below the prefix; '' = where ament_cmake puts them.
    """
    env = _environment()
    cmake = shutil.which("cmake", path=env["PATH"])
    if cmake is None:
        raise InterfaceBuildError("cmake not found: `sudo apt install cmake` or `pip install cmake ninja`")
    # One folder per environment: CMake's cache must not outlive the Python and the ROS that it was made for.
    ros = find("rosidl_default_generators")
    key = "\0".join([sys.executable, sys.version, str(ros), str(prefix), python_directory])
    folder = directory.absolute() / f"{PACKAGE}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
    options = [
        f"-DCMAKE_INSTALL_PREFIX={prefix}",
        "-DCMAKE_BUILD_TYPE=Release",
        f"-DPython3_EXECUTABLE={sys.executable}",
        f"-DPYTHON_EXECUTABLE={sys.executable}",  # Humble's name for it
        "-DBUILD_TESTING=OFF",
    ]
    if python_directory:
        options.append(f"-DPYTHON_INSTALL_DIR={python_directory}")
    if any((p / "pyvenv.cfg").exists() for p in ros_prefixes()):
        options.append(f"-DCMAKE_PROJECT_INCLUDE={ROOT / 'tools' / 'ros_wheels.cmake'}")
    if not (folder / "CMakeCache.txt").exists() and shutil.which("ninja", path=env["PATH"]):
        options.append("-GNinja")
    _run([cmake, "-S", str(SOURCE), "-B", str(folder), "--no-warn-unused-cli", *options], env)
    jobs = env.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(len(os.sched_getaffinity(0)))
    _run([cmake, "--build", str(folder), "--parallel", jobs], env)
    return folder


def install(folder: Path, destination: Path) -> None:
    """Install what build() made below `destination` (which may be a staging folder for the prefix)."""
    env = _environment()
    cmake = shutil.which("cmake", path=env["PATH"]) or "cmake"
    _run([cmake, "--install", str(folder), "--prefix", str(destination)], env)


def wheel_python_directory() -> str:
    """Where this interpreter keeps Python packages, relative to where a wheel's data files go."""
    return os.path.relpath(sysconfig.get_path("platlib"), sysconfig.get_path("data"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--build-directory", type=Path, required=True)
    parser.add_argument("--prefix", type=Path, default=own_prefix(), help="default: this interpreter's own")
    args = parser.parse_args()
    try:
        install(build(args.build_directory, args.prefix), args.prefix)
    except InterfaceBuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
