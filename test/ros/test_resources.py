# SPDX-License-Identifier: Apache-2.0
import contextlib
import os
import socket

import pytest

from mobilevlm_ros.ros.resources import free_domain, private_environment, shared_file


def occupy(domains: range, stack: contextlib.ExitStack) -> None:
    for domain in domains:
        taken = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with contextlib.suppress(OSError):  # somebody else's already
            taken.bind(("0.0.0.0", 7400 + 250 * domain + 10))


def test_skips_the_domains_in_use() -> None:
    with contextlib.ExitStack() as stack:
        occupy(range(1, 100), stack)
        assert free_domain() in (100, 101)
        occupy(range(100, 102), stack)
        with pytest.raises(RuntimeError, match="stop some ROS nodes"):
            free_domain()


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
