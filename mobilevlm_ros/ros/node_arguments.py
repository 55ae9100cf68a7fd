# SPDX-License-Identifier: Apache-2.0
"""The command line of a node: what it does not know is refused, instead of running with defaults."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

from rclpy.utilities import remove_ros_args

# Parameters that rclpy declares itself.
_OWN = re.compile(r"use_sim_time|start_type_description_service|qos_overrides\..*")
_OPTION = re.compile(r"--?([A-Za-z][\w-]*)")


def check_arguments(argv: Sequence[str], parameters: Mapping[str, str]) -> int | None:
    """Answers --help and refuses what the node does not know: the exit status, or None to go on.

    Args:
        argv: with the program's name first.
        parameters: what each parameter of the node means; empty where that is not known yet.
    """
    program = argv[0].rpartition("/")[2].removesuffix(".py") if argv else "node"
    rest = remove_ros_args(list(argv))[1:]
    if {"-h", "--help"} & set(rest):
        print("\n".join(_help(program, parameters)))
        return 0
    if rest:
        return _refuse(program, _about_word(rest, parameters))
    unknown = [name for name in given_parameters(argv) if parameters and not _known(name, parameters)]
    if unknown:
        return _refuse(program, f"there is no parameter {unknown[0]!r}{nearest(unknown[0], parameters)}")
    return None


def given_parameters(argv: Sequence[str]) -> list[str]:
    """Names of the parameters that `-p NAME:=VALUE` sets, without the node's name before a ':'."""
    words = pairwise(argv)
    given = [value.partition(":=")[0] for flag, value in words if flag in ("-p", "--param") and ":=" in value]
    return [name.rpartition(":")[2] for name in given]


def undeclared(given: Collection[str], declared: Collection[str]) -> list[str]:
    """Parameters that were given, in a file perhaps, and that the node does not have."""
    return sorted(name for name in given if not _known(name, declared))


def _known(name: str, declared: Collection[str]) -> bool:
    return name in declared or _OWN.fullmatch(name) is not None


def nearest(name: str, parameters: Collection[str]) -> str:
    """The parameter whose name is most like this one, as a question in brackets; empty where none is."""
    near = difflib.get_close_matches(name, parameters, 1)
    return f" (did you mean {near[0]}?)" if near else ""


def _about_word(rest: Sequence[str], parameters: Collection[str]) -> str:
    option = _OPTION.match(rest[0])
    name = option[1].replace("-", "_") if option else ""
    if name in parameters:
        value = rest[0].partition("=")[2] or next(iter(rest[1:]), "VALUE")
        return f"parameters are given the ROS way: --ros-args -p {name}:={value}"
    return f"unknown argument {rest[0]!r}: a node takes --ros-args -p NAME:=VALUE and the like"


def _refuse(program: str, message: str) -> int:
    print(
        f"usage: {program} [--ros-args -p NAME:=VALUE ...]\n"
        f"{program}: error: {message}; `{program} --help` lists the parameters",
        file=sys.stderr,
    )
    return 2


def _help(program: str, parameters: Mapping[str, str]) -> list[str]:
    lines = [
        f"usage: {program} [--ros-args [-p NAME:=VALUE ...] [--params-file FILE] [-r FROM:=TO ...]]",
        "",
        "examples:",
        f"  {program}",
        f"  {program} --ros-args -r image:=/front/image_raw -r __ns:=/front",
        f"  {program} --ros-args --params-file config/nano.yaml",
    ]
    if parameters:
        lines += ["", "parameters:", *(f"  {name:20} {text}" for name, text in parameters.items())]
    return lines
