# SPDX-License-Identifier: Apache-2.0
"""Build of the ROS 2 package mobilevlm_ros, for colcon (ament_python) and pip. Metadata is in setup.cfg.

Besides the Python package this installs the interface package mobilevlm_msgs (msg/). colcon does not look for
packages inside a package, so this is what makes one `colcon build` of a plain clone give node and interfaces.
"""

import os
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.develop import develop as _develop

# `colcon build --symlink-install` runs a link to this file in the build folder.
ROOT = Path(os.path.realpath(__file__)).parent
sys.path.insert(0, str(ROOT / "tools"))
from distutils.command.install_data import install_data as _install_data  # noqa: E402 (setuptools brings it)

import build_interfaces as interfaces  # noqa: E402

NAME = "mobilevlm_ros"
SHARED = ("launch", "config", "models/nano/bundle")


class BinaryDistribution(Distribution):
    """Not pure Python where the interfaces' libraries are inside."""

    def has_ext_modules(self) -> bool:
        return not interfaces.reason_to_skip()


def install_interfaces(command: "_develop | _install_data", destination: str, *, wheel: bool) -> None:
    """Build mobilevlm_msgs and install it below `destination`, unless there is no need to."""
    reason = interfaces.reason_to_skip()
    if reason:
        print(f"{interfaces.PACKAGE} is not built: {reason}")
        return
    base = Path(command.get_finalized_command("build").build_base)
    if wheel:
        folder = interfaces.build(base, interfaces.own_prefix(), interfaces.wheel_python_directory())
    else:
        folder = interfaces.build(base, Path(sys.prefix))
    mark = Path(destination) / interfaces.OURS
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    interfaces.install(folder, Path(destination))


class install_data(_install_data):  # noqa: N801 (a command's name)
    """Data files, the interfaces, and for pip the executables where `ros2 run` and launch look for them."""

    def run(self) -> None:
        super().run()
        wheel = "bdist_wheel" in self.distribution.command_obj
        install_interfaces(self, self.install_dir, wheel=wheel)
        if wheel:
            self.write_launchers(Path(self.install_dir, "lib", NAME))

    def write_launchers(self, folder: Path) -> None:
        """pip puts console scripts into bin/ only; ROS runs the files in lib/<package>/."""
        folder.mkdir(parents=True, exist_ok=True)
        entry_points: dict[str, list[str]] = vars(self.distribution)["entry_points"]
        for entry in entry_points["console_scripts"]:
            script = folder / entry.split("=")[0].strip()
            script.write_text('#!/bin/sh\nexec "$(dirname "$0")/../../bin/$(basename "$0")" "$@"\n')
            script.chmod(0o755)


class develop(_develop):  # noqa: N801
    """`colcon build --symlink-install`; data files are linked by colcon's own command."""

    def run(self) -> None:
        super().run()
        install_interfaces(self, sys.prefix, wheel=False)

    def write_script(self, script_name: str, contents: str, *rest: object) -> None:
        """As `[build_scripts] executable` of setup.cfg, which this command of setuptools does not read."""
        super().write_script(script_name, "#!/usr/bin/env python3\n" + contents.partition("\n")[2], *rest)


def data_files() -> "list[tuple[str, list[str]]]":
    """(folder below the prefix, files): what ROS and the node look for under share/."""
    files = [
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
    ]
    # The command that is typed without `ros2 run`. colcon puts bin/ on the PATH; pip makes its own there.
    if not {"bdist_wheel", "editable_wheel"} & set(sys.argv):
        files.append(("bin", ["resource/bin/mobilevlm"]))
    for top in SHARED:
        for folder, _, names in os.walk(top):
            found = sorted(os.path.join(folder, n) for n in names if not n.endswith((".pyc", ".md")))
            if found:
                files.append((f"share/{NAME}/{folder}", found))
    return files


readme = ROOT / "README.md"  # named in full: colcon links only some files into its build folder
try:
    setup(
        python_requires=">=3.10",  # not in setup.cfg: colcon cannot read what setuptools makes of it there
        long_description=readme.read_text(encoding="utf-8") if readme.exists() else "",
        long_description_content_type="text/markdown",
        data_files=data_files(),
        cmdclass={"install_data": install_data, "develop": develop},
        distclass=BinaryDistribution,
    )
except interfaces.InterfaceBuildError as error:
    sys.exit(f"error: {error}")
