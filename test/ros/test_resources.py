# SPDX-License-Identifier: Apache-2.0
import contextlib
import os
import socket
import subprocess
import sys

import pytest

from mobilevlm_ros.ros.resources import free_domain, private_environment, shared_file


def test_a_domain_in_use_is_skipped_and_one_that_was_given_is_not_given_again() -> None:
    used, free = 230, 231  # of no node: 102 and more are not given to any
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        with contextlib.suppress(OSError):  # somebody else's already
            taken.bind(("0.0.0.0", 7400 + 250 * used + 10))
        assert free_domain((used, free)) == free
        with pytest.raises(RuntimeError, match=r"from 230 to 231 is in use .* stop some ROS nodes"):
            free_domain((used, free))
        there = "from mobilevlm_ros.ros.resources import free_domain; print(free_domain((231, 232)))"
        other = subprocess.run([sys.executable, "-c", there], capture_output=True, text=True, timeout=60)
        assert other.stdout == "232\n", other.stderr


def test_this_session_has_a_domain_of_its_own() -> None:
    assert 1 <= int(os.environ["ROS_DOMAIN_ID"]) <= 101
    assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"


@pytest.mark.parametrize(
    ("distro", "variable"),
    [
        ("humble", "FASTRTPS_DEFAULT_PROFILES_FILE"),
        ("jazzy", "FASTRTPS_DEFAULT_PROFILES_FILE"),
        ("kilted", "FASTDDS_DEFAULT_PROFILES_FILE"),
    ],
)
def test_private_environment(distro: str, variable: str) -> None:
    environment = private_environment({"ROS_DISTRO": distro, "ROS_DOMAIN_ID": "7", "HOME": "/home/me"})
    assert environment["HOME"] == "/home/me"
    assert environment["ROS_DOMAIN_ID"] != "0"
    assert environment[variable] == str(shared_file("config", "fastdds.xml"))
    assert (environment.get("ROS_LOCALHOST_ONLY") == "1") == (distro == "humble")
    # A profile of the user's own stays.
    assert private_environment({"ROS_DISTRO": distro, variable: "mine.xml"})[variable] == "mine.xml"


def test_a_file_that_is_not_there() -> None:
    assert shared_file("config", "nothing.yaml") is None
